from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from dying_process import run_until_statement
from sqlalchemy import Connection

from gristmill.storage.errors import KeyUsed, StorageError
from gristmill.storage.records import UsedKey
from gristmill.storage.scope import Scope
from gristmill.storage.sql import migration
from gristmill.storage.sql.schema import metadata
from gristmill.storage.sql.sqlite import SqliteDatabase
from gristmill.storage.sql.store import SqlMetadataStore

_CONFIG = Config()
_CONFIG.set_main_option("script_location", str(Path(migration.__file__).with_name("migrations")))
REVISIONS = [each.revision for each in ScriptDirectory.from_config(_CONFIG).walk_revisions()][::-1]

#: What the first version could store.
_STORED = [
    "INSERT INTO batches (seq, id, endpoint, input_file_id, completion_window, status, created_at, expires_at, total,"
    " completed, failed, input_tokens, cached_tokens, output_tokens, unreported_rows, lease_until)"
    " VALUES (7, 'batch_1', '/v1/chat/completions', 'file-1', '24h', 'in_progress', 1, 2, 2, 1, 0, 9, 4, 3, 0, 0)",
    "INSERT INTO files (id, bytes, created_at, filename, purpose, deleted, erased)"
    " VALUES ('file-1', 100, 1, 'in.jsonl', 'batch', 0, 0)",
    "INSERT INTO rows (batch, line, custom_id, offset, length) VALUES (7, 1, 'a', 0, 50), (7, 2, 'b', 50, 50)",
    "INSERT INTO results (batch, line, succeeded, payload) VALUES (7, 1, 1, x'6f6e65')",
    "INSERT INTO uploads (id, bytes, created_at, expires_at, filename, purpose, status)"
    " VALUES ('upload_1', 5, 1, 3601, 'b', 'batch', 'pending')",
    "INSERT INTO upload_parts (id, upload_id, bytes, created_at) VALUES ('part_1', 'upload_1', 5, 1)",
]


def url(path: Path) -> str:
    return f"sqlite:///{path}"


async def open_and_use(path: Path, work: Callable[[Connection], object]) -> object:
    database = SqliteDatabase(url(path))
    try:
        await database.migrate()
        return await database.read(work)
    finally:
        await database.close()


def migrating(path: Path) -> Callable[[], Awaitable[None]]:
    async def migrate() -> None:
        await open_and_use(path, lambda _: None)

    return migrate


async def database_of_version(path: Path, revision: str) -> None:
    """As a version of Gristmill that knew no later migration left it."""

    def make(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(_CONFIG.get_main_option("script_location")))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for statement in _STORED:
            connection.exec_driver_sql(statement)

    database = SqliteDatabase(url(path))
    await database.write(make)
    await database.close()


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of what the first version knew."""
    columns = {
        "batches": "seq, id, endpoint, status, total, completed, input_tokens",
        "files": "id, bytes, filename",
        "rows": "batch, line, custom_id, offset, length",
        "results": "batch, line, succeeded, payload",
        "uploads": "id, status",
        "upload_parts": "id, upload_id",
    }
    with sqlite3.connect(path) as connection:
        found = {
            table: connection.execute(f"SELECT {names} FROM {table}").fetchall() for table, names in columns.items()
        }
    connection.close()
    return found


async def assert_current(path: Path) -> None:
    differences = await open_and_use(path, lambda it: compare_metadata(MigrationContext.configure(it), metadata))
    assert differences == []


async def test_the_migrations_make_the_tables_the_queries_are_written_against(tmp_path: Path) -> None:
    await assert_current(tmp_path / "test.db")
    # Once more changes nothing.
    await assert_current(tmp_path / "test.db")


async def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    def pragmas(it: Connection) -> tuple[object, object]:
        return (
            it.exec_driver_sql("PRAGMA journal_mode").scalar(),
            it.exec_driver_sql("PRAGMA synchronous").scalar(),
        )

    assert await open_and_use(tmp_path / "test.db", pragmas) == ("wal", 2)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_every_earlier_version_is_migrated_with_all_it_holds(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "test.db"
    await database_of_version(path, revision)
    before = content(path)
    await assert_current(path)
    assert content(path) == before
    assert all(before.values())


async def test_idempotency_keys_from_before_there_were_access_keys_are_still_known(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    await database_of_version(path, "0008")
    used = UsedKey.of("again", "POST /v1/batches", b"{}", 1_000).answered({"id": "batch_1"})
    with sqlite3.connect(path) as connection:
        values = (used.key, used.request, used.used_at, used.answer)
        connection.execute("INSERT INTO idempotency_keys (key, request, used_at, answer) VALUES (?, ?, ?, ?)", values)
    connection.close()
    store = SqlMetadataStore.at(url(path))
    await store.start()
    try:
        with pytest.raises(KeyUsed) as known:
            await store.keys.check(used)
        assert known.value.first == used
        # What was there belongs to nobody: to those who see everything.
        assert await store.files.get("file-1") is not None and await store.batches.get("batch_1") is not None
        seen = store.seen_by(Scope("key_1"))
        assert await seen.files.get("file-1") is None and await seen.batches.get("batch_1") is None
        await seen.keys.check(used)
    finally:
        await store.stop()


@pytest.mark.parametrize("revision", [None, *REVISIONS[:-1]])
async def test_a_kill_at_any_statement_of_the_migrations_changes_nothing(tmp_path: Path, revision: str | None) -> None:
    base = tmp_path / "base.db"
    if revision is not None:
        await database_of_version(base, revision)
    before = content(base) if revision else None
    moment = 0
    killed = True
    while killed:
        moment += 1
        folder = tmp_path / str(moment)
        folder.mkdir()
        path = folder / "test.db"
        if revision is not None:
            shutil.copy(base, path)
        killed = run_until_statement(moment, migrating(path))
        await assert_current(path)
        if before is not None:
            assert content(path) == before
        shutil.rmtree(folder)
    assert moment > 10, "the kills missed the migrations"


async def test_a_database_that_a_newer_version_has_written_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    await open_and_use(path, lambda _: None)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StorageError, match="newer version of Gristmill"):
        await open_and_use(path, lambda _: None)
