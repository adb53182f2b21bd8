"""Pruning and checking: what is freed, what is found, and what is left alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stocked_folder import add_batch, add_file, content, stocked, use

from gristmill.finding import Finding
from gristmill.storage.answers import AnswerStore
from gristmill.storage.care.check import REPAIR_AGE_SECONDS, check
from gristmill.storage.care.disk_use import DiskUse, disk_use
from gristmill.storage.care.prune import Pruned, prune
from gristmill.storage.housekeeping import keep_house
from gristmill.storage.open import OpenStorage, StorageSettings, open_beside, places
from gristmill.storage.protocol import Storage
from gristmill.storage.sql import sqlite
from gristmill.user_error import UserError


def pruned(data: Path, before: int = 1000, files: bool = True, dry_run: bool = False) -> Pruned:
    return asyncio.run(prune(StorageSettings(data), before, files, dry_run))


def checked(data: Path, repair: bool = False, later: float = 0) -> dict[str, Finding]:
    return {each.check: each for each in asyncio.run(check(StorageSettings(data), repair, time.time() + later))}


def execute(data: Path, *statements: str) -> None:
    with sqlite3.connect(data / "gristmill.db") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


async def ended(storage: Storage) -> None:
    """An old batch with a file of its own, as large as its results were."""
    await add_file(storage, "file-old", b"x" * 300_000)
    old = await add_batch(storage, "old", 3000, 3000, input_file_id="file-old")
    changes = {"status": "completed", "completed_at": 10}
    assert await storage.metadata.batches.change("old", changes, expected="in_progress")
    await storage.metadata.rows.clear_ended(old.seq)
    await add_file(storage, "file-1", b"one\n" * 1000)
    await add_batch(storage, "batch_1", 20, 7)


@pytest.mark.parametrize("beside_a_server", [False, True])
def test_what_ended_long_ago_goes_and_its_space_with_it(tmp_path: Path, beside_a_server: bool) -> None:
    data = tmp_path / "data"
    asyncio.run(use(data, ended))
    size = (data / "gristmill.db").stat().st_size
    would = pruned(data, dry_run=True)
    assert would.found == (1, 1, 300_000) and would.database > 100_000
    assert pruned(data, files=False, dry_run=True).found == (1, 0, 0)
    assert pruned(data, before=10, dry_run=True).found == (0, 0, 0)

    async def beside(storage: Storage) -> None:
        # A server is about to name this one.
        async with storage.new_blobs.begin("files/file-new") as write:
            await write(_bytes(b"new"))
            assert (await prune(StorageSettings(data), 1000, True, False)).found == would.found
            assert (data / "blobs/files/file-new").read_bytes() == b"new"
        # Now, and not when the server writes again.
        assert (data / "gristmill.db").stat().st_size <= size - 100_000

    if beside_a_server:
        asyncio.run(use(data, beside))
    else:
        assert pruned(data).database >= would.database
    assert (data / "gristmill.db").stat().st_size <= size - 100_000
    found = content(data)
    assert found["blobs"] == {"file-1": b"one\n" * 1000}
    assert [each[1] for each in found["batches"]] == ["batch_1"]  # type: ignore[attr-defined]
    assert checked(data)["batches"].verdict == "ok"
    assert pruned(data).found == (0, 0, 0)


async def _bytes(content: bytes):  # type: ignore[no-untyped-def]
    yield content


#: In a process of its own that no other test has used: the blob store's threads do not live through a fork.
_PRUNE_UNTIL = """
import sys
from pathlib import Path
from dying_process import run_until_statement
from gristmill.storage.care.disk_use import DiskUse, disk_use
from gristmill.storage.care.prune import prune
from gristmill.storage.open import OpenStorage, StorageSettings, open_beside, places
killed = run_until_statement(int(sys.argv[2]), lambda: prune(StorageSettings(Path(sys.argv[1])), 1000, True, False))
print("killed" if killed else "ended")
"""


def test_a_pruning_that_is_killed_is_done_by_the_next(tmp_path: Path) -> None:
    asyncio.run(use(tmp_path / "first", ended))
    shutil.copytree(tmp_path / "first", tmp_path / "whole")
    pruned(tmp_path / "whole")
    after = content(tmp_path / "whole")
    moment, said = 3, "killed"
    while said == "killed":
        data = shutil.copytree(tmp_path / "first", tmp_path / str(moment))
        command = [sys.executable, "-c", _PRUNE_UNTIL, str(data), str(moment)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parent)
        assert done.returncode == 0, done.stderr
        said = done.stdout.strip()
        assert checked(data)["database"].verdict == "ok"
        pruned(data)
        assert content(data) == after
        shutil.rmtree(data)
        # Every ninth of some forty.
        moment += 9
    assert moment > 30


def test_a_database_of_an_earlier_version_gives_its_space_back_once_nobody_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    with monkeypatch.context() as earlier:
        configure = sqlite._configure

        def without(connection: sqlite3.Connection, record: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            configure(connection, record)

        earlier.setattr(sqlite, "_configure", without)
        asyncio.run(use(data, ended))
    size = (data / "gristmill.db").stat().st_size

    async def beside(_: Storage) -> None:
        done = await prune(StorageSettings(data), 1000, True, False)
        assert done.database == 0 and done.kept_back > 100_000

    asyncio.run(use(data, beside))
    assert pruned(data).database > 100_000
    assert (data / "gristmill.db").stat().st_size < size - 100_000
    assert pruned(data).kept_back == 0


def test_kept_answers_give_their_space_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AnswerStore(tmp_path / "answers.db")
    asyncio.run(store.add([(b"%d" % number, bytes(1000)) for number in range(3000)]))
    asyncio.run(store.prune())
    assert (tmp_path / "answers.db").stat().st_size > 3_000_000
    now = time.time()
    monkeypatch.setattr("gristmill.storage.answers.time.time", lambda: now + 200 * 86400)
    asyncio.run(store.prune())
    assert (tmp_path / "answers.db").stat().st_size < 100_000
    assert asyncio.run(store.find([b"1"])) == {}


def test_a_server_gives_space_back_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    monkeypatch.setattr("gristmill.storage.housekeeping.KEEP_FREE_BYTES", 50_000)
    monkeypatch.setattr("gristmill.storage.housekeeping._GIVEN_AT_ONCE", 100_000)

    async def story(storage: Storage) -> None:
        await ended(storage)
        before = await storage.metadata.upkeep.sizes()
        house = asyncio.create_task(keep_house(storage, AnswerStore(data / "answers.db"), None))
        while (await storage.metadata.upkeep.sizes()).free > 60_000:
            await asyncio.sleep(0.01)
        house.cancel()
        assert (await storage.metadata.upkeep.sizes()).bytes < before.bytes - 100_000

    asyncio.run(use(data, story))


def test_all_is_well(tmp_path: Path) -> None:
    found = checked(stocked(tmp_path / "data"))
    assert [each.verdict for each in found.values()] == ["ok", "ok", "note", "ok", "ok"]
    assert "one that has ended holds 1 batch," in found["leases"].detail

    async def beside(_: Storage) -> None:
        assert (await check(StorageSettings(tmp_path / "data"), False, time.time()))[2].detail.startswith(
            "A server runs"
        )

    asyncio.run(use(tmp_path / "data", beside))


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM results WHERE line = 3", "batch_1: 7 rows are counted as done, and 6 results are stored."),
        ("UPDATE batches SET completed = 30", "batch_1: 30 rows are counted as done, of 20."),
        ("DELETE FROM rows WHERE line = 20", "batch_1: it has 20 rows, and 19 are indexed."),
        ("DELETE FROM rows WHERE line = 3", "batch_1: it has 20 rows, and 19 are indexed."),
        ("DELETE FROM batches", "batch number 1: there are rows of it, but no batch."),
    ],
)
def test_what_cannot_be_true_is_told(tmp_path: Path, statement: str, told: str) -> None:
    data = stocked(tmp_path / "data")
    execute(data, statement)
    found = asyncio.run(check(StorageSettings(data), False, time.time()))
    assert told in [each.detail for each in found if each.verdict == "problem" and each.advice]


def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    data = stocked(tmp_path / "data")
    database = data / "gristmill.db"
    content = bytearray(database.read_bytes())
    # Of the last pages, which hold rows and results.
    content[-3 * 4096 : -4096] = os.urandom(2 * 4096)
    database.write_bytes(content)
    try:
        assert checked(data)["database"].verdict == "problem"
    except UserError as error:
        assert "malformed" in str(error)


def test_files_that_are_gone_or_cut_off_are_told(tmp_path: Path) -> None:
    data = stocked(tmp_path / "data")
    (data / "blobs/files/file-1").unlink()
    (data / "blobs/files/file-2").write_bytes(b"cut")
    found = [each for each in asyncio.run(check(StorageSettings(data), True, time.time())) if each.check == "files"]
    assert [each.detail for each in found] == ["files/file-1 is gone.", "files/file-2 has 3 bytes instead of 2,000."]


def test_bytes_that_belong_to_nothing_are_found_and_removed_once_they_are_old(tmp_path: Path) -> None:
    data = stocked(tmp_path / "data")
    blobs = data / "blobs"
    (blobs / "parts").mkdir()
    orphans = [blobs / "files/file-orphan", blobs / "parts/part_orphan", blobs / "files/file-cut#1"]
    for orphan in orphans:
        orphan.write_bytes(b"orphan")
    execute(data, "INSERT INTO blob_writes (path, owner) VALUES ('files/file-now', 'a server')")
    (blobs / "files/file-now").write_bytes(b"being written")
    young = checked(data, repair=True)["orphans"]
    assert young.verdict == "note" and young.detail.startswith("3 blobs with 18 bytes") and "younger" in young.advice
    # A clock that was set back does not make them old.
    assert checked(data, repair=True, later=-(2**30))["orphans"].verdict == "note"
    assert all(orphan.exists() for orphan in orphans)
    old = checked(data, later=REPAIR_AGE_SECONDS)["orphans"]
    assert "--repair" in old.advice and all(orphan.exists() for orphan in orphans)
    assert checked(data, repair=True, later=REPAIR_AGE_SECONDS)["orphans"].verdict == "ok"
    assert not any(orphan.exists() for orphan in orphans)
    assert sorted(path.name for path in blobs.rglob("file-*")) == ["file-1", "file-2", "file-now"]


def test_what_all_takes_is_told_part_by_part_wherever_it_lies(tmp_path: Path) -> None:
    settings = StorageSettings(tmp_path / "data", blobs=str(tmp_path / "elsewhere"))

    async def look(with_orphans: bool) -> DiskUse:
        async with open_beside(settings) as storage:
            return await disk_use(storage, places(settings), with_orphans=with_orphans)

    async def store() -> None:
        opened = OpenStorage(settings)
        await add_file(await opened.start(), "file-1", b"x" * 300_000)
        await opened.stop()

    asyncio.run(store())
    for folder, size in (("scoring/scoring_1/work", 5_000), ("scratch/a", 700)):
        (settings.data / folder).mkdir(parents=True)
        (settings.data / folder / "file").write_bytes(b"x" * size)
    (tmp_path / "elsewhere" / "files" / "file-lost").write_bytes(b"x" * 90)
    found = asyncio.run(look(True))
    assert (found.scorings, found.scratch, found.orphans, found.files) == (5_000, 700, 90, {"batch": 300_000})
    assert found.used == found.database + found.write_ahead_log + found.answers + 305_790
    # At each look of a page, not every file is looked at.
    assert asyncio.run(look(False)).orphans == 0
