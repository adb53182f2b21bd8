"""A batch whose results cannot fit on the disk is refused before it runs, and no other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_supervisor import end, submit, tell

from gristmill.batches import room as rooms
from gristmill.batches.host import BatchHost
from gristmill.batches.output_lines import failure, shortest_line_bytes, success
from gristmill.batches.room import Need, RoomForResults, RowsToStore, need_of
from gristmill.inference.answer import Answer
from gristmill.storage.disk_room import DiskRoom
from gristmill.wire.errors import ApiError
from requests_jsonl import CHAT, chat_file, chat_line, jsonl
from server_process import ServerProcess


def room(database: int, blobs: int | None = None) -> RoomForResults:
    """On one disk, or on two."""
    second = DiskRoom(1, database, 0) if blobs is None else DiskRoom(2, blobs, 0)
    return RoomForResults(DiskRoom(1, database, 0), second, 0)


def test_a_row_is_once_in_the_database_and_once_in_a_file() -> None:
    assert need_of([RowsToStore(100, 100)], 10, 0) == Need(1000, 1000)
    assert need_of([RowsToStore(100, 40)], 10, 0) == Need(400, 1000)
    assert need_of([RowsToStore(100, 100)], 10, 700) == Need(300, 1000)
    assert need_of([RowsToStore(100, 100)], 10, 5000) == Need(0, 1000)
    assert need_of([], 10, 0) == Need(0, 0)


def test_batches_at_once_count_together_but_use_the_database_in_turn() -> None:
    assert need_of([RowsToStore(100, 100), RowsToStore(50, 50), RowsToStore(30, 0)], 10, 0) == Need(1000, 1800)


def test_what_exceeds_is_told_with_both_numbers() -> None:
    assert Need(10, 20).exceeds(room(30)) is None
    assert Need(10, 20).exceeds(room(29)) == (30, 29)
    assert Need(10, 20).exceeds(room(10, 20)) is None
    assert Need(10, 20).exceeds(room(9, 100)) == (10, 9)
    assert Need(10, 20).exceeds(room(100, 19)) == (20, 19)


@given(st.text(), st.integers(1, 10**7), st.sampled_from([400, 500, 504]), st.text())
def test_no_line_is_shorter_than_the_shortest(custom_id: str, line: int, status: int, message: str) -> None:
    timed_out = ApiError(504, message, code="request_timeout")
    results = [
        failure("batch_1", line, custom_id, ApiError(status, message)),
        failure("batch_1", line, custom_id, timed_out),
        success("batch_1", line, custom_id, Answer.reused_body(b"{}")),
    ]
    assert all(len(result.payload) + 1 >= shortest_line_bytes() for result in results)


@pytest.mark.parametrize("free", [20_000, 2**40])
def test_a_batch_that_may_not_fit_runs_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    async def look(_: object) -> RoomForResults:
        return room(free)

    monkeypatch.setattr(rooms, "look", look)

    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, chat_file(30))).id)
        assert batch.status == "completed" and batch.gristmill and batch.gristmill.plan
        said = batch.gristmill.plan.disk_warning
        if free == 20_000:
            assert said and "20,000 were free" in said and "may need 31,920 bytes" in said
        else:
            assert said is None

    tell(tmp_path, story)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", folder]).returncode:
        pytest.skip("run as root to run this: it mounts a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_batch_that_cannot_fit_is_refused_with_both_numbers_and_a_smaller_one_runs(small_disk: Path) -> None:
    with ServerProcess(small_disk / "data") as server:
        client = server.client()

        def ended(rows: int) -> object:
            lines = jsonl([chat_line(f"{row}", max_tokens=1) for row in range(rows)])
            file = client.files.create(file=("rows.jsonl", lines), purpose="batch")
            batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            while batch.status in ("validating", "in_progress", "finalizing"):
                batch = client.batches.retrieve(batch.id)
            client.files.delete(file.id)
            return batch

        refused = ended(100_000)
        assert refused.status == "failed" and refused.request_counts.total == 0  # type: ignore[attr-defined]
        (error,) = refused.errors.data  # type: ignore[attr-defined]
        assert error.code == "insufficient_disk_space"
        need = 2 * 100_000 * shortest_line_bytes()
        assert f"need at least {need:,} bytes" in error.message and "are free on the disk" in error.message
        assert ended(2_000).status == "completed"  # type: ignore[attr-defined]
