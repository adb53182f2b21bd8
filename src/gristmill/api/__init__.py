"""The HTTP face: one file a resource of the OpenAI contract. Handlers decode, ask, and encode; nothing else."""
