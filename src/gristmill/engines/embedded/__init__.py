"""What any embedded engine needs: a model in a process of its own, computed step by step for many sequences at once.

A request's way: ``engine`` and ``process`` (the server's side of the pipe), ``frames``, ``worker``, ``preparation``
(requests made into sequences: ``prompt``, ``tokenizer``, ``grammar``), ``engine_loop`` with ``scheduler`` and
``prefix_cache`` (which sequences compute which tokens in the next step, in which KV blocks), ``sampler``, and back.
``supervision`` keeps the process running. What computes a step is a ``model_runner``; ``openvino`` is one.
"""
