"""SQLAlchemy's connections to a PostgreSQL server, and what a server and database have to be."""

from __future__ import annotations

from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, text

from gristmill.storage.errors import StorageError
from gristmill.storage.sql.postgresql_address import PostgresqlAddress

#: The oldest version that these statements are for, as its number.
_OLDEST = 14
_FACTS = text(
    "SELECT current_setting('server_version_num')::int / 10000 AS version,"
    " current_setting('server_encoding') AS encoding, current_schema() AS schema, current_database() AS database,"
    " has_database_privilege(current_database(), 'CREATE') AS may_create"
)


def create_postgresql_engine(address: PostgresqlAddress, connections: int) -> Engine:
    engine = create_engine(
        "postgresql+psycopg://", pool_size=connections, hide_parameters=True, use_native_hstore=False
    )

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> Any:
        return address.connect(context=parameters.get("context"))

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def driver_of(connection: Connection) -> psycopg.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


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
