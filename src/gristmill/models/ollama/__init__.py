"""The models that Ollama has on this machine, read in place; Ollama need not run."""
