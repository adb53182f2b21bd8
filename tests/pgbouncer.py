"""A real pgbouncer in transaction mode between a client and a PostgreSQL server, for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from types import TracebackType

import pytest

from postgres_server import PASSWORD, PostgresServer


class PgBouncer:
    """It has fewer connections to the server than it takes from clients. Skips where it is not installed."""

    def __init__(self, postgres: PostgresServer, **settings: object) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("pgbouncer is not installed: scripts/install-test-tools.sh")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        settings = {
            "listen_addr": "127.0.0.1", "listen_port": self.port, "auth_type": "any", "pool_mode": "transaction",
            "default_pool_size": 2, "unix_socket_dir": "", "logfile": "",
        } | settings  # fmt: skip
        target = f"host=127.0.0.1 port={postgres.port} user=tests password={PASSWORD}"
        lines = ["[databases]", f"* = {target}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        self._config = postgres.folder / f"pgbouncer-{self.port}.ini"
        self._config.write_text("\n".join(lines))
        with self._config.with_suffix(".log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, self._config],
                stdout=log,
                stderr=log,
                **postgres.as_user(),  # type: ignore[call-overload]
            )

    def url(self, of: str) -> str:
        """The way to a database through it; ``of`` is the one without."""
        return f"postgresql://tests@127.0.0.1:{self.port}/{of.rpartition('/')[2]}?connect_timeout=5"

    def __enter__(self) -> PgBouncer:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            time.sleep(0.05)
        raise AssertionError(self._config.with_suffix(".log").read_text())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)
