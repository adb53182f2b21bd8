from __future__ import annotations

import os
from pathlib import Path

import pytest
from blob_contract import BlobContract, chunks

from gristmill.storage.blob_store import BlobStore
from gristmill.storage.blobs.local import LocalBlobStore
from gristmill.storage.blobs.obstore_blobs import CHUNK_BYTES
from gristmill.storage.errors import BlobLost
from gristmill.storage.lock import folder_lock
from gristmill.user_error import UserError


class TestLocalBlobs(BlobContract):
    def open(self, folder: Path) -> BlobStore:
        return LocalBlobStore(folder)


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
