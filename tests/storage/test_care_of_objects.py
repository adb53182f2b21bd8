"""Checking, pruning, backup and disk use where the files are in an object store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stocked_folder import add_batch, add_file, once

from gristmill.batches.room import look, need_of_unfinished
from gristmill.finding import Finding
from gristmill.storage.care.backup import take_backup
from gristmill.storage.care.check import REPAIR_AGE_SECONDS, check
from gristmill.storage.care.disk_use import disk_use
from gristmill.storage.care.prune import prune
from gristmill.storage.care.restore import restore
from gristmill.storage.disk_room import room_of
from gristmill.storage.open import OpenStorage, StorageSettings, open_beside, places
from gristmill.storage.protocol import Storage
from gristmill.user_error import UserError
from s3_server import BUCKET, S3Server


@pytest.fixture
def settings(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageSettings:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return StorageSettings(tmp_path / "data", blobs=f"s3://{BUCKET}/{tmp_path.name}")


@pytest.fixture
async def storage(settings: StorageSettings) -> AsyncIterator[Storage]:
    """A server's."""
    opened = OpenStorage(settings)
    storage = await opened.start()
    await add_file(storage, "file-1", b"one\n" * 1000)
    await add_batch(storage, "batch_1", 20, 7)
    yield storage
    await opened.stop()


async def checked(settings: StorageSettings, repair: bool = False, later: float = 0) -> dict[str, Finding]:
    return {each.check: each for each in await check(settings, repair, time.time() + later)}


async def test_files_that_are_gone_or_cut_off_are_told(settings: StorageSettings, storage: Storage) -> None:
    await add_file(storage, "file-2", b"two\n" * 1000)
    assert (await checked(settings))["files"].detail == "All files are there: 2, of 8,000 bytes."
    await storage.blobs.write("files/file-1", once(b"one"))
    await storage.blobs.delete("files/file-2")
    told = [each.detail for each in await check(settings, False, time.time()) if each.check == "files"]
    assert sorted(told) == ["files/file-1 has 3 bytes instead of 4,000.", "files/file-2 is gone."]


async def test_bytes_that_belong_to_nothing_are_removed_once_they_are_old(
    settings: StorageSettings, storage: Storage, s3_server: S3Server, tmp_path: Path
) -> None:
    await storage.blobs.write("files/file-9", once(b"x" * 10))
    await storage.blobs.write("parts/part-9", once(b"x" * 5))
    found = (await checked(settings, repair=True))["orphans"]
    assert found.detail == "2 blobs with 15 bytes belong to nothing."
    found = (await checked(settings, repair=True, later=REPAIR_AGE_SECONDS + 60))["orphans"]
    assert found.detail == "2 blobs with 15 bytes that belonged to nothing were removed."
    assert s3_server.files(tmp_path.name) == {"files/file-1": 4000}


async def test_what_ended_long_ago_goes_with_its_files(
    settings: StorageSettings, storage: Storage, s3_server: S3Server, tmp_path: Path
) -> None:
    await add_file(storage, "file-old", b"x" * 300_000)
    old = await add_batch(storage, "old", 3, 3, input_file_id="file-old")
    changes = {"status": "completed", "completed_at": 10}
    assert await storage.metadata.batches.change("old", changes, expected="in_progress")
    await storage.metadata.rows.clear_ended(old.seq)
    # The newest batch is never forgotten.
    await add_batch(storage, "batch_2", 20, 7)
    assert (await prune(settings, 1000, True, False)).found == (1, 1, 300_000)
    assert s3_server.files(tmp_path.name) == {"files/file-1": 4000}


async def test_a_disk_that_the_files_are_not_on_is_not_counted(settings: StorageSettings, storage: Storage) -> None:
    async with open_beside(settings) as beside:
        use = await disk_use(beside, places(settings))
    assert use.elsewhere and use.files == {"batch": 4000}
    assert use.used == use.database + use.write_ahead_log + use.scratch
    assert use.size == room_of(settings.data).size
    assert (await look(storage)).blobs is None
    of_rows_left = await need_of_unfinished(storage)
    assert 0 <= of_rows_left < 20 * 300, "no room is needed for the files"


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
async def test_a_backup_has_the_files_and_is_restored_into_a_folder(
    settings: StorageSettings, storage: Storage, tmp_path: Path, name: str
) -> None:
    taken = await take_backup(settings, tmp_path / name, lambda *_: None)
    assert [(entry.path, entry.bytes) for entry in taken.manifest.blobs] == [("files/file-1", 4000)]
    again = await take_backup(settings, tmp_path / "again", lambda *_: None)
    assert again.copied == again.bytes
    again = await take_backup(settings, tmp_path / "again", lambda *_: None)
    assert again.copied == again.bytes - 4000
    with pytest.raises(UserError, match="is restored into a folder, not into s3://") as refused:
        await restore(
            StorageSettings(tmp_path / "other", blobs=settings.blobs), tmp_path / name, False, lambda *_: None
        )
    assert "\n" not in str(refused.value)
    await restore(StorageSettings(tmp_path / "restored"), tmp_path / name, False, lambda *_: None)
    assert (tmp_path / "restored/blobs/files/file-1").read_bytes() == b"one\n" * 1000
    left = {path.name for path in tmp_path.iterdir()} - {"data", "restored", "again", name}
    assert left == set()


async def test_bytes_that_were_lost_before_are_named_in_a_backup(
    settings: StorageSettings, storage: Storage, tmp_path: Path
) -> None:
    await storage.blobs.delete("files/file-1")
    taken = await take_backup(settings, tmp_path / "backup", lambda *_: None)
    assert taken.manifest.damaged == ["files/file-1"] and taken.manifest.blobs == []
