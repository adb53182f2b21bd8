"""Storage: what must survive a kill. Metadata in SQL, bytes in a blob store, each behind a protocol (``protocol.py``)."""
