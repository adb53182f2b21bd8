"""The embedded engine on llama.cpp: any GGUF file, on the CPU and on every GPU that llama.cpp can use.

``library`` finds and binds libllama, and checks that its ``structs`` are those we know; ``llama_log`` keeps what it
says. ``devices`` and ``offload`` decide what computes which layers, ``computing`` tells of it, ``model_facts`` is what
a file says of itself before it is loaded, ``loading`` puts it all together. ``vocabulary`` is the tokenizer, and
``runner`` computes a step.
"""
