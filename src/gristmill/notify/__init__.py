"""Webhooks: whom a batch's end is told, how it is signed and sent, and what is tried again."""
