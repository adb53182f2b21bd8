"""Calls of tools as text: how each family of models writes them, told, kept to by a grammar, and read back."""
