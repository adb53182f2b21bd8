"""What every blob store has to hold, whatever it stands on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gristmill.storage.blob_store import BlobStore
from gristmill.storage.errors import BlobLost

MB = 1_000_000
#: More than a part of any store.
LARGE = 11 * MB


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def large() -> AsyncIterator[bytes]:
    for number in range(11):
        yield bytes([number]) * MB


class Interrupted(Exception):
    pass


async def names(blobs: BlobStore) -> set[str]:
    return {blob.path async for some in blobs.entries("files") for blob in some}


class BlobContract:
    """To derive from."""

    def open(self, folder: Path) -> BlobStore:
        """An empty store, another one for each ``folder``."""
        raise NotImplementedError

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return self.open(tmp_path)

    @pytest.mark.parametrize(
        "parts", [[], [b""], [b"one"], [b"", b"a", b"bc" * 50, b"d"], [b"x" * 9 * MB], [b"y" * 8 * 1024**2]]
    )
    async def test_what_is_written_is_read_whatever_its_chunks(self, blobs: BlobStore, parts: list[bytes]) -> None:
        whole = b"".join(parts)
        assert await blobs.write("files/a", chunks(*parts)) == len(whole) == await blobs.size("files/a")
        assert b"".join([part async for part in blobs.stream("files/a")]) == whole
        end = min(9, len(whole))
        assert b"".join([part async for part in blobs.stream("files/a", min(3, end), end)]) == whole[3:9]
        start = min(1, len(whole))
        assert await blobs.read("files/a", start, len(whole) - start) == whole[1:]

    async def test_a_large_blob_is_streamed_in_pieces_of_the_size_asked_for(self, blobs: BlobStore) -> None:
        assert await blobs.write("files/big", large()) == LARGE
        pieces = [piece async for piece in blobs.stream("files/big")]
        assert b"".join(pieces) == b"".join([part async for part in large()])
        assert max(map(len, pieces)) <= 4 * 1024 * 1024
        small = [piece async for piece in blobs.stream("files/big", 5, 7_000_000, 300_000)]
        assert b"".join(small) == await blobs.read("files/big", 5, 6_999_995)
        assert max(map(len, small)) <= 300_000

    @pytest.mark.parametrize("good", [0, 1, 6, 10])
    async def test_a_write_that_fails_raises_its_own_error_and_leaves_nothing(
        self, blobs: BlobStore, good: int
    ) -> None:
        async def broken() -> AsyncIterator[bytes]:
            for _ in range(good):
                yield b"x" * 4 * MB
            raise Interrupted

        with pytest.raises(Interrupted):
            await blobs.write("files/a", broken())
        with pytest.raises(BlobLost):
            await blobs.size("files/a")
        assert await names(blobs) == set()
        assert await blobs.discard("files/a") == 0

    @pytest.mark.parametrize("good", [0, 1, 6, 10])
    async def test_a_write_that_is_cancelled_while_it_waits_for_more_leaves_nothing(
        self, blobs: BlobStore, good: int
    ) -> None:
        waiting = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(good):
                yield b"x" * 4 * MB
            waiting.set()
            await asyncio.Event().wait()

        writing = asyncio.create_task(blobs.write("files/a", endless()))
        await waiting.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await names(blobs) == set()
        assert await blobs.discard("files/a") == 0

    async def test_cancelled_at_any_moment_a_blob_is_there_whole_or_not_at_all(self, blobs: BlobStore) -> None:
        for step in range(12):
            writing = asyncio.create_task(blobs.write("files/a", large()))
            await asyncio.sleep(step * 0.005)
            writing.cancel()
            await asyncio.wait((writing,))
            if await names(blobs):
                assert await blobs.size("files/a") == LARGE
            assert await blobs.discard("files/a") in (0, LARGE)

    async def test_writing_again_replaces_the_blob_whole(self, blobs: BlobStore) -> None:
        await blobs.write("files/a", chunks(b"a long first version"))
        await blobs.write("files/a", chunks(b"second"))
        assert [part async for part in blobs.stream("files/a")] == [b"second"]

    async def test_deleting_what_is_not_there_is_no_error(self, blobs: BlobStore) -> None:
        await blobs.write("files/a", chunks(b"x"))
        for _ in range(2):
            await blobs.delete("files/a")
        with pytest.raises(BlobLost):
            await blobs.read("files/a", 0, 1)
        with pytest.raises(BlobLost):
            await anext(blobs.stream("files/a"))

    async def test_ranges_come_back_in_the_order_they_were_asked_for(self, blobs: BlobStore) -> None:
        await blobs.write("files/a", chunks(bytes(range(256)) * 20_000))
        wanted = [(4_000_200, 2), (0, 1), (100, 3), (5_000_000, 256)]
        expected = [(bytes(range(256)) * 20_000)[start : start + length] for start, length in wanted]
        assert await blobs.read_ranges("files/a", wanted) == expected

    async def test_a_blob_that_is_shorter_than_it_should_be_is_noticed_however_it_is_read(
        self, blobs: BlobStore
    ) -> None:
        await blobs.write("files/a", chunks(bytes(50)))
        for start, length in ((0, 100), (40, 20), (50, 1), (90, 10)):
            with pytest.raises(BlobLost):
                await blobs.read("files/a", start, length)
            with pytest.raises(BlobLost):
                await blobs.read_ranges("files/a", [(0, 1), (start, length)])
            with pytest.raises(BlobLost):
                await anext(blobs.stream("files/a", start, start + length))
        assert await blobs.read_ranges("files/a", [(0, 1), (49, 1)]) == [b"\0", b"\0"]

    async def test_what_is_discarded_is_counted(self, blobs: BlobStore) -> None:
        await blobs.write("files/a", chunks(bytes(100)))
        await blobs.write("files/ab", chunks(bytes(7)))
        assert await blobs.discard("files/a") == 100
        assert await blobs.discard("files/a") == 0
        assert await names(blobs) == {"files/ab"}

    async def test_what_is_there_is_listed_with_its_size(self, blobs: BlobStore) -> None:
        for number in range(3):
            await blobs.write(f"files/{number}", chunks(bytes(number)))
        await blobs.write("parts/other", chunks(b"x"))
        found = {blob.path: blob.bytes async for some in blobs.entries("files") for blob in some}
        assert found == {"files/0": 0, "files/1": 1, "files/2": 2}
        assert [some async for some in blobs.entries("nothing") if some] == []

    async def test_trying_it_out_leaves_nothing(self, blobs: BlobStore) -> None:
        await blobs.try_out()
        assert [some async for some in blobs.entries("try") if some] == []
