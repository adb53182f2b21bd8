"""Inference: the endpoints a request can ask for, each from a JSON body to its answer.

One table, ``endpoints.ENDPOINTS``, serves both the HTTP API and the lines of a batch.
"""
