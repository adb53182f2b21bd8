"""Bytes and their records, with everything that can come between them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gristmill.storage.errors import WriteGivenUp
from gristmill.storage.open import OpenStorage, StorageSettings, storage_of
from gristmill.storage.protocol import Storage
from gristmill.storage.records import FileRecord, ServerRecord, file_blob


async def chunks(size: int, pieces: int = 3) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        await asyncio.sleep(0)
        yield b"x" * size


def record(file_id: str, size: int) -> FileRecord:
    return FileRecord(file_id, size, 1, "a", "user_data")


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    opened = OpenStorage(StorageSettings(tmp_path))
    yield await opened.start()
    await opened.stop()


def blobs_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "blobs").rglob("*") if path.is_file()}


async def test_a_blob_without_a_record_is_gone_at_the_end_of_the_block_and_one_with_a_record_stays(
    storage: Storage, tmp_path: Path
) -> None:
    async with storage.new_blobs.begin(file_blob("kept")) as write:
        await storage.metadata.files.add(record("kept", await write(chunks(5))))
    async with storage.new_blobs.begin(file_blob("unnamed")) as write:
        await write(chunks(5))
    with pytest.raises(ZeroDivisionError):
        async with storage.new_blobs.begin(file_blob("failed")) as write:
            await write(chunks(5))
            raise ZeroDivisionError
    assert blobs_in(tmp_path) == {"kept"}
    assert await storage.new_blobs.free_unnamed() == (0, 0)


async def test_the_blob_of_a_write_under_way_is_never_freed(storage: Storage, tmp_path: Path) -> None:
    async with storage.new_blobs.begin(file_blob("a")) as write:
        await storage.new_blobs.free_unnamed()
        size = await write(chunks(5))
        assert await storage.new_blobs.free_unnamed() == (0, 0)
        assert blobs_in(tmp_path) == {"a"}
        await storage.metadata.files.add(record("a", size))
        assert await storage.new_blobs.free_unnamed() == (0, 0)
    assert blobs_in(tmp_path) == {"a"}


async def test_what_could_not_be_freed_at_once_is_freed_later(storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "blobs" / "files"
    async with storage.new_blobs.begin(file_blob("a")) as write:
        await write(chunks(5))
        # A folder of that name cannot be deleted as a file can.
        (folder / "a").unlink()
        (folder / "a").mkdir()
    assert (folder / "a").exists()
    (folder / "a").rmdir()
    (folder / "a").write_bytes(b"x" * 15)
    assert await storage.new_blobs.free_unnamed() == (1, 15)


async def test_what_could_not_be_freed_is_freed_though_writing_it_anew_was_cancelled_as_it_began(
    storage: Storage, tmp_path: Path
) -> None:
    async def refuse(*_: object) -> int:
        raise OSError("not now")

    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.blobs, "discard", refuse)
        async with storage.new_blobs.begin(file_blob("a")) as write:
            await write(chunks(5))
    assert blobs_in(tmp_path) == {"a"}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(asyncio.CancelledError):
        patch.setattr(storage.metadata.blob_writes, "begin", cancelled)
        async with storage.new_blobs.begin(file_blob("a")):
            pass
    await storage.new_blobs.free_unnamed()
    assert blobs_in(tmp_path) == set()


async def test_what_another_server_writes_is_left_alone_while_it_is_there_and_freed_once_it_is_dead(
    storage: Storage, tmp_path: Path
) -> None:
    other = storage_of(storage.metadata, storage.blobs)
    there = ServerRecord(other.server_id, "machine", "1", "simulated", [], [], 1)
    await storage.metadata.servers.announce(there, 60)
    async with other.new_blobs.begin(file_blob("a")) as write_a, other.new_blobs.begin(file_blob("b")) as write_b:
        size = await write_a(chunks(5))
        await write_b(chunks(5))
        assert await storage.new_blobs.free_unnamed() == (0, 0)
        await other.metadata.files.add(record("a", size))
        await storage.metadata.servers.announce(there, -1)
        assert await storage.new_blobs.free_unnamed() == (1, 15)
        assert blobs_in(tmp_path) == {"a"}
        # It was no more than slow: what it wrote is gone, so nothing may name it.
        with pytest.raises(WriteGivenUp):
            await other.metadata.files.add(record("b", size))
        await write_b(chunks(5))
    # And what it wrote after that, it frees itself.
    assert blobs_in(tmp_path) == {"a"}
    assert await other.new_blobs.free_unnamed() == await storage.new_blobs.free_unnamed() == (0, 0)


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_is_cancelled_wherever_every_record_has_its_bytes_and_all_bytes_a_record(
    storage: Storage, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)

    async def store(file_id: str) -> None:
        async with storage.new_blobs.begin(file_blob(file_id)) as write:
            await storage.metadata.files.add(record(file_id, await write(chunks(chance.choice([0, 5, 50_000])))))

    async def keep_house() -> None:
        while True:
            await storage.new_blobs.free_unnamed()
            await asyncio.sleep(0)

    house = asyncio.create_task(keep_house())
    names = [f"file-{number}" for number in range(12)]
    for _ in range(2):
        # The second time, those that failed are written anew under the same name, as result files are.
        page = await storage.metadata.files.page(after=None, limit=100, newest_first=True, purpose=None)
        stored = {each.id for each in page.records}
        tasks = [asyncio.create_task(store(name)) for name in names if name not in stored]
        for task in tasks:
            for _ in range(chance.choice([0, 0, 1, 2])):
                await asyncio.sleep(chance.uniform(0, 0.004))
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    house.cancel()
    await asyncio.gather(house, return_exceptions=True)
    await storage.new_blobs.free_unnamed()
    page = await storage.metadata.files.page(after=None, limit=100, newest_first=True, purpose=None)
    assert blobs_in(tmp_path) == {each.id for each in page.records}
    for each in page.records:
        assert await storage.blobs.size(file_blob(each.id)) == each.bytes
