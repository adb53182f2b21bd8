"""Batches: what a batch is and how it lives, from validating its input to writing its files."""
