from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.storage.blobs import CHUNK_BYTES, LocalBlobStore
from gristmill.storage.errors import BlobLost
from gristmill.storage.lock import folder_lock
from gristmill.user_error import UserError


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


class Interrupted(Exception):
    pass


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=10))
def test_what_is_written_is_read_whatever_its_chunks(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    async def main() -> None:
        blobs = LocalBlobStore(tmp_path_factory.mktemp("blobs"))
        whole = b"".join(parts)
        assert await blobs.write("files/a", chunks(*parts)) == len(whole)
        assert b"".join([part async for part in blobs.stream("files/a")]) == whole
        assert b"".join([part async for part in blobs.stream("files/a", 3, min(9, len(whole)))]) == whole[3:9]
        assert await blobs.read("files/a", 1, max(len(whole) - 1, 0)) == whole[1:]

    asyncio.run(main())


def test_a_large_blob_is_streamed_in_pieces(tmp_path: Path) -> None:
    async def main() -> None:
        blobs = LocalBlobStore(tmp_path)
        size = await blobs.write("big", chunks(*[bytes([n]) * 1_000_003 for n in range(11)]))
        pieces = [len(piece) async for piece in blobs.stream("big")]
        assert sum(pieces) == size == 11 * 1_000_003
        assert max(pieces) == CHUNK_BYTES
        small = [piece async for piece in blobs.stream("big", 5, 2_000_000, 300_000)]
        assert {len(piece) for piece in small[:-1]} == {300_000} and b"".join(small) == await blobs.read(
            "big", 5, 1_999_995
        )

    asyncio.run(main())


def test_a_write_that_fails_raises_its_own_error_and_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * CHUNK_BYTES
        raise Interrupted

    async def main() -> None:
        blobs = LocalBlobStore(tmp_path)
        with pytest.raises(Interrupted):
            await blobs.write("files/a", broken())
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        with pytest.raises(BlobLost):
            await blobs.read("files/a", 0, 1)

    asyncio.run(main())


def test_writing_again_replaces_the_blob_whole(tmp_path: Path) -> None:
    async def main() -> None:
        blobs = LocalBlobStore(tmp_path)
        await blobs.write("a", chunks(b"a long first version"))
        await blobs.write("a", chunks(b"second"))
        assert [part async for part in blobs.stream("a")] == [b"second"]
        await blobs.delete("a")
        await blobs.delete("a")
        with pytest.raises(BlobLost):
            await blobs.read("a", 0, 1)

    asyncio.run(main())


def test_ranges_come_back_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        blobs = LocalBlobStore(tmp_path)
        await blobs.write("a", chunks(bytes(range(256))))
        assert await blobs.read_ranges("a", [(200, 2), (0, 1), (100, 3)]) == [b"\xc8\xc9", b"\0", b"def"]

    asyncio.run(main())


def test_what_a_kill_left_of_a_write_is_removed(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name in ("files/whole", "files/half#1"):
        (tmp_path / name).write_bytes(b"x")
    LocalBlobStore(tmp_path).remove_unfinished()
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["whole"]


async def test_a_blob_that_is_shorter_than_it_should_be_is_noticed_however_it_is_read(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path)
    await blobs.write("a", chunks(bytes(100)))
    assert await blobs.size("a") == 100
    with (tmp_path / "a").open("r+b") as file:
        file.truncate(50)
    for start, length in ((0, 100), (40, 20), (50, 1), (90, 10)):
        with pytest.raises(BlobLost):
            await blobs.read("a", start, length)
        with pytest.raises(BlobLost):
            await blobs.read_ranges("a", [(0, 1), (start, length)])
        with pytest.raises(BlobLost):
            await anext(blobs.stream("a", start, start + length))
    assert await blobs.read_ranges("a", [(0, 1), (49, 1)]) == [b"\0", b"\0"]


async def test_what_is_discarded_is_counted_with_what_cut_off_writes_left(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path)
    await blobs.write("files/a", chunks(bytes(100)))
    for name, size in (("a#1", 20), ("a#2", 3), ("ab", 7), ("b#1", 9)):
        (tmp_path / "files" / name).write_bytes(bytes(size))
    assert await blobs.discard("files/a") == 123
    assert await blobs.discard("files/a") == 0
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["ab", "b#1"]


async def test_blobs_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        blobs = LocalBlobStore(tmp_path / "blobs")
        await blobs.write("files/a", chunks(b"x" * 10))
        await blobs.write("files/b", chunks(bytes(3 * CHUNK_BYTES)))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "blobs", *tmp_path.glob("blobs/**/*"))}
    assert modes == {"blobs": 0o700, "files": 0o700, "a": 0o600, "b": 0o600}


def test_a_folder_is_locked_for_one_and_free_again_afterwards(tmp_path: Path) -> None:
    first, second = folder_lock(tmp_path / "new" / "data"), folder_lock(tmp_path / "new" / "data")
    first.acquire()
    with pytest.raises(UserError, match="is in use by another Gristmill"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        folder_lock(tmp_path / "file" / "data").acquire()
