"""The KV cache's account: which of a sequence's tokens are there already, and where. Pure.

``kv_memory`` is what the scheduler asks; ``paged_memory`` keeps blocks (with ``prefix_cache``), ``forked_memory`` the
cells of llama.cpp's unified cache (with ``fork_tree``), ``slot_memory`` one sequence.
"""
