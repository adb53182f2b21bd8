from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import metadata


@pytest.fixture
async def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.migrate()
    return database


async def test_the_migrations_make_the_tables_the_queries_are_written_against(database: Database) -> None:
    differences = await database.read(lambda it: compare_metadata(MigrationContext.configure(it), metadata))
    assert differences == []


async def test_migrating_again_changes_nothing(database: Database) -> None:
    await database.migrate()


async def test_every_commit_reaches_the_disk(database: Database) -> None:
    assert await database.read(lambda it: it.exec_driver_sql("PRAGMA journal_mode").scalar()) == "wal"
    assert await database.read(lambda it: it.exec_driver_sql("PRAGMA synchronous").scalar()) == 2
