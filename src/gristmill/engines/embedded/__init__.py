"""What any embedded engine needs: a model in a process of its own, computed step by step for many sequences at once.

A request's way: ``engine`` and ``worker/`` (the process and the pipe to it), ``preparation`` (requests made into
sequences: ``prompt``, ``tokenizer``, ``grammar``, ``tools/``, ``pictures/``), ``scheduling/`` (which sequences compute
which tokens in the next step), ``kv/`` (where their keys and values are; ``prefix_files/``: those on disk),
``sampler``, and back. ``embeddings/`` is the same for models that embed. What computes a step is a ``model_runner``:
``openvino/`` and ``llama_cpp/`` each have one; ``support`` says which of them can load a model.
"""
