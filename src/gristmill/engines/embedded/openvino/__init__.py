"""The embedded engine on OpenVINO, on the CPU of this machine.

``prepare`` makes what ``paged_model`` reads out of a GGUF file; ``vocabulary`` is its tokenizer. ``shared_attention``
computes attention over the KV blocks by our own kernel (``attention_kernel``, in C) as ``attention_plan`` says;
``kv_cache`` keeps them for OpenVINO's. ``split_linear`` computes linear layers by another kernel, where ``precision``
has found that to be faster.
"""
