"""A server on PostgreSQL, and what a user is told of a database that cannot be used."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from metadata_contract import file, server

from gristmill.storage.blobs.open import open_blobs
from gristmill.storage.errors import StorageError, Unreachable
from gristmill.storage.shared_blobs import require_shared
from gristmill.storage.sql.store import SqlMetadataStore
from gristmill.user_error import UserError
from postgres_server import PASSWORD, PostgresServer
from requests_jsonl import CHAT, chat_line, jsonl
from server_process import ServerProcess


def told(*arguments: str, exit_code: int = 2, waits: str | None = None) -> str:
    """What a command that is refused says: one line, or one more that says that it ``waits`` first. By default it is
    one that no other try mends."""
    command = [sys.executable, "-m", "gristmill", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == exit_code and not done.stdout, done
    *before, line = done.stderr.splitlines()
    assert len(before) == (waits is not None) and all(str(waits) in each for each in before), done
    assert PASSWORD not in line and "secret" not in line
    return line


def serve(folder: Path, url: str, *more: str) -> tuple[str, ...]:
    return ("serve", "--engine", "simulated", "--port", "0", "--data", str(folder), "--database", url, *more)


def test_a_batch_runs_on_postgresql_and_its_rows_are_dropped_whole(postgres: PostgresServer, tmp_path: Path) -> None:
    url, blobs = postgres.new_database(), str(tmp_path / "blobs")
    # PostgreSQL's texts have no NUL.
    names = [f"row-{index}\0\x01" for index in range(300)]
    with ServerProcess(tmp_path / "data", "--database", url, "--blobs", blobs) as server:
        client = server.client()
        body = jsonl([chat_line(name) for name in names])
        file = client.files.create(file=("in.jsonl", body), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            time.sleep(0.1)
            batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed" and batch.output_file_id and batch.request_counts, batch
        lines = client.files.content(batch.output_file_id).text.splitlines()
        assert [json.loads(line)["custom_id"] for line in lines] == names
        assert server.stop() == 0
        log = "".join(server.log)
    assert PASSWORD not in log
    schemas = postgres.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE '%batch%'", url.rpartition("/")[2])
    assert schemas == []
    check = [sys.executable, "-m", "gristmill", "admin", "check", "--data", str(tmp_path / "data")]
    subprocess.run([*check, "--database", url, "--blobs", blobs], check=True, timeout=120, capture_output=True)


def test_a_server_that_joins_others_but_keeps_files_elsewhere_is_told(postgres: PostgresServer, tmp_path: Path) -> None:
    url, blobs = postgres.new_database(), str(tmp_path / "blobs")
    elsewhere = serve(tmp_path / "other", url, "--blobs", str(tmp_path / "elsewhere"))
    with ServerProcess(tmp_path / "data", "--database", url, "--blobs", blobs) as server:
        body = jsonl([chat_line("row-0")])
        server.client().files.create(file=("in.jsonl", body), purpose="batch")
        said = told(*elsewhere, waits="whether another server still runs")
        assert "None of the files" in said and "--blobs" in said
        with ServerProcess(tmp_path / "other", "--database", url, "--blobs", blobs) as other:
            assert len(other.client().files.list().data) == 1
            assert other.stop() == 0
        assert server.stop() == 0
    # Who is alone may have lost what it had.
    with ServerProcess(tmp_path / "other", "--database", url, "--blobs", str(tmp_path / "elsewhere")) as alone:
        assert len(alone.client().files.list().data) == 1


async def test_a_server_that_was_killed_is_waited_for_and_one_that_runs_is_told_of(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    store = SqlMetadataStore.at(postgres.new_database())
    await store.start()
    try:
        elsewhere = open_blobs(str(tmp_path / "elsewhere"))
        await store.files.add(file("file-1"))
        await store.servers.announce(server("killed"), 1)
        await require_shared(store, elsewhere)
        assert await store.servers.alive() == []

        await store.servers.announce(server("killed"), 3600)
        await store.servers.announce(server("alive"), 60)
        joining = asyncio.create_task(require_shared(store, elsewhere))
        await asyncio.sleep(0.1)
        await store.servers.announce(server("alive"), 60)
        with pytest.raises(UserError, match="None of the files") as told_of:
            await joining
        assert told_of.value.exit_code == 2
    finally:
        await store.stop()


async def test_a_server_without_the_tls_that_is_asked_for_is_not_worth_another_start(postgres: PostgresServer) -> None:
    store = SqlMetadataStore.at(postgres.new_database() + "?sslmode=require")
    try:
        with pytest.raises(StorageError, match="does not support SSL") as refused:
            await store.start()
        assert not isinstance(refused.value, Unreachable)
    finally:
        await store.stop()


def test_a_database_that_cannot_be_used_is_one_sentence(postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'secret'")
    url, blobs = postgres.new_database(), ("--blobs", str(tmp_path / "blobs"))
    refused = {
        postgres.url("no_such_database"): 'database "no_such_database" does not exist',
        postgres.url("postgres", password="secret"): "password authentication failed",
        postgres.url("latin"): "ENCODING 'UTF8'",
        postgres.url("postgres", "guest", "secret"): "may not create schemas",
        "postgresql://tests:secret@127.0.0.1:1/x": "Connection refused",
        "postgresql://tests:secret@no-such-host.invalid/x": "failed to resolve host",
        "postgresql://tests:secret@%zz/x": "cannot be read",
        "postgresql://tests:secret@127.0.0.1/x?nonsense=1": "cannot be read",
        "postgresql://tests:a@secret@127.0.0.1/x": "cannot be read",
        "postgresql://tests:secret/a@127.0.0.1/x": "cannot be read",
        "postgresql://tests:secret?a@127.0.0.1/x": "cannot be read",
        "mysql://tests:secret@127.0.0.1/x": "'mysql' is not supported",
        "host=127.0.0.1 password=secret": "is not supported",
    }
    for wrong, sentence in refused.items():
        exit_code = 75 if "refused" in sentence or "resolve" in sentence else 2
        assert sentence in told(*serve(tmp_path / "data", wrong, *blobs), exit_code=exit_code), wrong
    assert "--blobs" in told(*serve(tmp_path / "data", url))
    # Nothing was made where something was missing.
    assert "not Gristmill's" in told("admin", "check", "--data", str(tmp_path / "data"), "--database", url, *blobs)


def test_another_version_and_what_is_for_files_is_one_sentence(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    where = ("--data", str(tmp_path / "data"), "--database", url)
    blobs = ("--blobs", str(tmp_path / "blobs"))
    made = [sys.executable, "-m", "gristmill", "admin", "key", "add", "me", *where]
    subprocess.run(made, check=True, timeout=120, capture_output=True)
    assert "pg_dump" in told("admin", "backup", str(tmp_path / "backup"), *where, *blobs)
    assert "pg_restore" in told("admin", "restore", str(tmp_path / "backup"), *where, *blobs)
    for version, sentence in (("0001", "earlier version"), ("9999", "newer version")):
        postgres.execute(f"UPDATE alembic_version SET version_num = '{version}'", url.rpartition("/")[2])
        assert sentence in told("admin", "check", *where, *blobs)
    assert "newer version" in told(*serve(tmp_path / "data", url, *blobs))


@pytest.mark.parametrize("variable", ["GRISTMILL_DATABASE", "PGPASSWORD"])
def test_the_password_need_not_be_in_the_command(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    url = postgres.new_database()
    monkeypatch.setenv(variable, url if variable == "GRISTMILL_DATABASE" else PASSWORD)
    options = ["--blobs", str(tmp_path / "blobs")]
    if variable == "PGPASSWORD":
        options += ["--database", url.replace(f":{PASSWORD}", "")]
    with ServerProcess(tmp_path / "data", *options) as server:
        assert list(server.client().batches.list()) == []
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert PASSWORD.encode() not in command


def test_a_standby_is_one_sentence_also_for_who_has_used_it(postgres: PostgresServer, tmp_path: Path) -> None:
    url, blobs = postgres.new_database(), ("--blobs", str(tmp_path / "blobs"))
    postgres.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    assert "read-only or a standby" in told(*serve(tmp_path / "data", url, *blobs))
    standby = postgres.standby()
    try:
        assert "read-only or a standby" in told(*serve(tmp_path / "data", standby.url("postgres"), *blobs))
    finally:
        standby.remove()


def test_too_many_connections_is_one_sentence(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    postgres.execute("CREATE ROLE crowded LOGIN PASSWORD 'secret' CONNECTION LIMIT 0")
    where = url.replace(f"tests:{PASSWORD}", "crowded:secret")
    line = told(*serve(tmp_path / "data", where, "--blobs", str(tmp_path / "blobs")), exit_code=75)
    assert 'too many connections for role "crowded"' in line


async def test_a_server_that_is_too_old_is_one_sentence(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gristmill.storage.sql import postgresql, postgresql_connection

    monkeypatch.setattr(postgresql_connection, "_OLDEST", 99)
    database = postgresql.PostgresqlDatabase(postgres.new_database())
    try:
        with pytest.raises(StorageError, match=r"it takes version 99 or newer"):
            await database.migrate()
    finally:
        await database.close()
