"""Engines: what computes completions. ``protocol`` is the seam, each other file or package is one engine."""
