"""Storage: what must survive a kill. Metadata in SQL, bytes in a blob store, each behind a protocol.

The contract: (1) a counted result is durable; (2) a row has at most one result; (3) no result means running
again is safe; (4) one runner owns a batch at a time, by a lease with a heartbeat; (5) everything after the last
result is a pure function of what is stored.
"""
