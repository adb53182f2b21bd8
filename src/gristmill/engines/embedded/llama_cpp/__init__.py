"""The embedded engine on llama.cpp: any GGUF file, on the CPU and on every GPU that llama.cpp can use.

``library`` finds and binds libllama, and checks that its ``structs`` are those we know; ``llama_log`` keeps what it
says. ``gguf_facts`` is what a file says of itself before it is loaded, ``needs`` what that takes; ``devices`` and
``offload`` decide what computes which layers, ``computing`` tells of it; ``opening`` has llama.cpp open the file, and
``loading`` puts it all together. ``vocabulary`` is the tokenizer, ``projector`` makes vectors of images, ``runner``
computes a step of a model that writes, ``slot_runner`` one of label scores that are the same to the bit, and
``embedder`` one of a model that embeds.
"""
