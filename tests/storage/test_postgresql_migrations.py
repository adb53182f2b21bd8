"""Migrations on PostgreSQL: whole or not at all, from every earlier version, whoever else starts or is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from dying_process import run_until_statement
from sqlalchemy import Connection

from gristmill.storage.errors import StorageError
from gristmill.storage.sql import migration
from gristmill.storage.sql.schema import metadata
from postgres_server import PostgresServer

_CONFIG = Config()
_CONFIG.set_main_option("script_location", str(Path(migration.__file__).with_name("migrations")))
_REVISIONS = [each.revision for each in ScriptDirectory.from_config(_CONFIG).walk_revisions()][::-1]

_STORED = (
    "INSERT INTO files (id, bytes, created_at, filename, purpose, deleted, erased)"
    " VALUES ('file-1', 100, 1, 'in.jsonl', 'batch', false, false);"
    "INSERT INTO uploads (id, bytes, created_at, expires_at, filename, purpose, status)"
    " VALUES ('upload_1', 5, 1, 3601, 'b', 'batch', 'pending')"
)
_CONTENT = "SELECT (SELECT count(*) FROM files WHERE id = 'file-1'), (SELECT count(*) FROM uploads)"


async def migrate(url: str) -> None:
    from gristmill.storage.sql.postgresql import PostgresqlDatabase

    database = PostgresqlDatabase(url)
    try:
        await database.migrate()
    finally:
        await database.close()


async def differences(url: str) -> list[object]:
    from gristmill.storage.sql.postgresql import PostgresqlDatabase

    database = PostgresqlDatabase(url)
    try:
        return await database.read(lambda it: compare_metadata(MigrationContext.configure(it), metadata))
    finally:
        await database.close()


async def database_of_version(postgres: PostgresServer, revision: str) -> str:
    """As a version of Gristmill that knew no later migration would have left it; its URL."""
    from gristmill.storage.sql.postgresql import PostgresqlDatabase

    url = postgres.new_database()

    def make(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(_CONFIG.get_main_option("script_location")))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.exec_driver_sql(_STORED)

    database = PostgresqlDatabase(url)
    await database.write(make)
    await database.close()
    return url


@pytest.mark.parametrize("revision", _REVISIONS)
async def test_every_earlier_version_is_migrated_on_postgresql_with_all_it_holds(
    postgres: PostgresServer, revision: str
) -> None:
    url = await database_of_version(postgres, revision)
    for _ in range(2):  # The second time changes nothing.
        await migrate(url)
        assert await differences(url) == []
    assert postgres.execute(_CONTENT, url.rpartition("/")[2]) == [(1, 1)]


async def test_servers_that_start_at_once_migrate_one_after_the_other(postgres: PostgresServer) -> None:
    url = await database_of_version(postgres, _REVISIONS[0])
    await asyncio.gather(*(migrate(url) for _ in range(5)))
    assert await differences(url) == []
    empty = postgres.new_database()
    await asyncio.gather(*(migrate(empty) for _ in range(5)))
    assert await differences(empty) == []


async def test_a_kill_within_the_migrations_changes_nothing_on_postgresql(postgres: PostgresServer) -> None:
    moment, killed, kills = 1, True, 0
    while killed:
        url = postgres.new_database()
        killed = run_until_statement(moment, lambda: migrate(url))  # noqa: B023 - run at once
        if killed:
            kills += 1
            name = url.rpartition("/")[2]
            tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            # Not one of them: the server notices a client that is gone, but not at once.
            for _ in range(200):
                sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
                if postgres.execute(sessions) == [(0,)]:
                    break
                await asyncio.sleep(0.05)
            assert postgres.execute(tables, name) == [(0,)] or await differences(url) == []
        await migrate(url)
        assert await differences(url) == []
        moment += 13
    assert kills > 5, "the kills missed the migrations"


async def test_a_database_of_a_newer_version_is_refused_on_postgresql(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    await migrate(url)
    postgres.execute("UPDATE alembic_version SET version_num = '9999'", url.rpartition("/")[2])
    with pytest.raises(StorageError, match="newer version of Gristmill"):
        await migrate(url)
