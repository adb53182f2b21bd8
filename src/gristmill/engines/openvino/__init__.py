"""The embedded engine: our own scheduler and prefix cache over OpenVINO's paged attention, in a process of its own.

``engine`` is the only module the rest of Gristmill imports. From a request down to the kernels: ``engine`` and
``process`` (server side of the pipe), ``worker``, ``prompt``, ``runner``, ``scheduler`` with ``prefix_tree``,
``sampler``, ``paged``. ``prepare`` makes what ``paged`` reads out of a GGUF file.
"""
