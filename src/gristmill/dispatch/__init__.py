"""Dispatch: how fast to feed an engine, and what to do when a request fails."""
