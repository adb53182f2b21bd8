"""Connections to a PostgreSQL server, and what a server and database have to be."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, create_engine, event, text

from gristmill.storage.errors import StorageError
from gristmill.user_error import UserError

#: The oldest version that these statements are for, as its number.
_OLDEST = 14
#: How a connection is made and watched, where the URL does not say otherwise.
_CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "gristmill",
}
_FACTS = text(
    "SELECT current_setting('server_version_num')::int / 10000 AS version,"
    " current_setting('server_encoding') AS encoding, current_schema() AS schema, current_database() AS database,"
    " has_database_privilege(current_database(), 'CREATE') AS may_create"
)


def create_postgresql_engine(url: str, connections: int) -> Engine:
    try:
        given = conninfo_to_dict(url)
        # With a "@", "/" or "?" in the password, libpq would take, and tell, its rest as a host, port or database.
        readable = url.count("@") == url.partition("://")[2].partition("/")[0].partition("?")[0].count("@") <= 1
    except psycopg.Error:
        readable = False
    if not readable:
        # An error of libpq's may repeat the URL, and with it the password.
        raise UserError(
            "The database's URL cannot be read: --database takes postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with "
            "special characters of the password written as %XX."
        )
    options: dict[str, Any] = {name: value for name, value in _CONNECTION.items() if name not in given}
    engine = create_engine(
        "postgresql+psycopg://", pool_size=connections, hide_parameters=True, use_native_hstore=False
    )

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> Any:
        # By libpq's own reading of the URL: with its several hosts, password files and environment variables. A
        # transaction is begun by ``begin``, and no statement gets a name.
        context = parameters.get("context")
        return psycopg.connect(url, autocommit=True, prepare_threshold=None, context=context, **options)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def require_usable(connection: Connection) -> None:
    """Raises StorageError for a server or database that this program does not work with."""
    facts = connection.execute(_FACTS).one()
    if facts.version < _OLDEST:
        raise StorageError(f"The database server is PostgreSQL {facts.version}: it takes version {_OLDEST} or newer.")
    if facts.encoding != "UTF8":
        raise StorageError(
            f"The database {facts.database} has the encoding {facts.encoding}: create one with ENCODING 'UTF8'."
        )
    if facts.schema is None:
        raise StorageError(
            f"The database {facts.database} has no schema to create tables in: create one that is in the search_path."
        )
    if not facts.may_create:
        raise StorageError(
            f"The user may not create schemas in the database {facts.database}: make it the owner, or grant it CREATE."
        )
