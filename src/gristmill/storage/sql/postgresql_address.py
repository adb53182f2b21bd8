"""Where a PostgreSQL server is, as a URL of libpq's says, and how it is connected to."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn, Ping

from gristmill.user_error import UserError

#: How a connection is made and watched, where the URL does not say otherwise.
_CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "gristmill",
}


class PostgresqlAddress:
    """The URL is read by libpq itself: with its several hosts, password files and environment variables."""

    def __init__(self, url: str) -> None:
        """Raises UserError for what is no URL."""
        try:
            given = conninfo_to_dict(url)
            # With a "@", "/" or "?" in the password, libpq would take, and tell, its rest as a host, port or database.
            in_address = url.partition("://")[2].partition("/")[0].partition("?")[0].count("@")
            readable = url.count("@") == in_address <= 1
        except psycopg.Error:
            readable = False
        if not readable:
            # An error of libpq's may repeat the URL, and with it the password.
            raise UserError(
                "The database's URL cannot be read: --database takes postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
                "with special characters of the password written as %XX."
            )
        self._url = url
        self._options: dict[str, Any] = {name: value for name, value in _CONNECTION.items() if name not in given}

    def refuses(self, error: BaseException | None) -> bool:
        """Whether no connection came about because the server does not take this one, while it takes others: a name,
        a password or a database is wrong. ``error`` is psycopg's, which has no code for it."""
        return "too many" not in str(error) and self.is_refused(error)

    def is_refused(self, error: BaseException | None, **changed: Any) -> bool:
        """Whether no connection came about because the server said no, for whatever reason, or what it shows is not
        what was asked for, such as no TLS: so it is there."""
        if isinstance(error, psycopg.errors.ConnectionTimeout) or not isinstance(error, psycopg.OperationalError):
            return False
        anyhow = self._options | changed | {"sslmode": "prefer"}
        return PGconn.ping(make_conninfo(self._url, **anyhow).encode()) == Ping.OK

    def connect(self, **changed: Any) -> psycopg.Connection:
        """A transaction is begun by whoever wants one, and no statement gets a name. Raises what psycopg raises."""
        return psycopg.connect(self._url, autocommit=True, prepare_threshold=None, **(self._options | changed))
