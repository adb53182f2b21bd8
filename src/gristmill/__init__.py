"""Gristmill: huge batches of LLM requests that share most of their prompt, on machines you own."""

__version__ = "0.1.0"
