"""The server with its patience cut to a second or so, so that tests of it need not wait for minutes."""

from __future__ import annotations

from gristmill.api import boundary, connection
from gristmill.cli.main import main

connection.HEAD_SECONDS = 1.0
connection.KEEP_ALIVE_SECONDS = 2
connection.DRAIN_SECONDS = 1.0
connection.READ_SECONDS = 2.0
boundary.IDLE_SECONDS = 1.0

if __name__ == "__main__":
    main()
