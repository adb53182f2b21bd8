"""What must survive a kill: metadata in SQL, bytes in a blob store, each behind a protocol (``protocol.py``)."""
