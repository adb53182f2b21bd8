"""A kill between bytes and the record that names them: the bytes are found and freed."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from test_stop_and_resume import answered, submit
from watched_batch import wait_until

from requests_jsonl import chat_file
from server_process import ServerProcess

SQL = "gristmill.storage.sql"
FILES_ADD = f"{SQL}.files:SqlFiles.add"
ADD_PART = f"{SQL}.uploads:SqlUploads.add_part"
UPLOAD_END = f"{SQL}.uploads:SqlUploads.end"


def killed_before(data: Path, place: str, call: int = 1) -> ServerProcess:
    server = ServerProcess(data)
    server.program = (sys.executable, str(Path(__file__).with_name("killed_before.py")), place, str(call))
    return server


def stored(data: Path) -> int:
    """Bytes in the blob store."""
    return sum(path.stat().st_size for path in (data / "blobs").rglob("*") if path.is_file())


def named(data: Path) -> int:
    """Bytes that records name."""
    connection = sqlite3.connect(data / "gristmill.db")
    try:
        query = "SELECT (SELECT coalesce(sum(bytes), 0) FROM files WHERE NOT erased)"
        query += " + (SELECT coalesce(sum(bytes), 0) FROM upload_parts)"
        (size,) = connection.execute(query).fetchone()
        return int(size)
    finally:
        connection.close()


@contextlib.contextmanager
def dying(server: ServerProcess) -> Iterator[None]:
    with contextlib.suppress(httpx.HTTPError, openai.APIConnectionError):
        yield
    wait_until(lambda: not server.alive(), "the server to be killed")


def assert_freed(data: Path, *, lost: int, kept: int) -> None:
    """The next server finds ``lost`` bytes that the killed one left, and nothing else."""
    assert stored(data) == lost + kept
    with ServerProcess(data, "--log-json") as server:
        wait_until(lambda: stored(data) == kept, "the bytes to be freed")
        assert named(data) == kept
        wait_until(lambda: any("no record names" in line for line in server.log), "the log to say so")
        events = [json.loads(line) for line in server.log if "no record names" in line]
        assert [(event["blobs"], event["bytes"]) for event in events] == [(1, lost)]


def test_a_file_whose_record_was_never_stored(data: Path) -> None:
    size = 5_000_000
    with killed_before(data, FILES_ADD, call=2) as server:
        client = server.client(max_retries=0)
        kept = client.files.create(file=("kept", b"k" * 1_000), purpose="user_data")
        with dying(server):
            client.files.create(file=("lost", b"x" * size), purpose="user_data")
    assert_freed(data, lost=size, kept=1_000)
    with ServerProcess(data) as server:
        assert server.client().files.content(kept.id).content == b"k" * 1_000


def test_a_file_that_was_still_on_its_way(data: Path) -> None:
    sent = 9_000_000

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(9):
            yield b"x" * (sent // 9)
        wait_until(lambda: stored(data) > 0, "the first bytes to be written")
        server.kill()
        yield b"x"

    with ServerProcess(data) as server, contextlib.suppress(httpx.HTTPError):
        headers = {"content-type": "multipart/form-data; boundary=b"}
        httpx.post(f"{server.base_url}/files", content=body(), headers=headers, timeout=60)
    assert stored(data) > 0
    with ServerProcess(data):
        assert stored(data) == 0


@pytest.mark.parametrize("place", [ADD_PART, UPLOAD_END])
def test_a_part_or_an_upload_whose_record_was_never_stored(data: Path, place: str) -> None:
    size = 200_000
    with killed_before(data, place) as server:
        client = server.client(max_retries=0)
        upload = client.uploads.create(bytes=size, filename="a", mime_type="x/y", purpose="user_data")
        with dying(server):
            part = client.uploads.parts.create(upload.id, data=b"x" * size)
            client.uploads.complete(upload.id, part_ids=[part.id])
    assert_freed(data, lost=size, kept=0 if place == ADD_PART else size)


def test_result_files_of_a_batch_that_had_not_ended(data: Path) -> None:
    with killed_before(data, f"{SQL}.batches:SqlBatches.change", call=3) as server, dying(server):
        batch_id = submit(server.client(), chat_file(50))
    assert stored(data) > named(data)
    with ServerProcess(data) as server:
        assert len(answered(server.client(), batch_id)) == 50
        wait_until(lambda: stored(data) == named(data), "nothing but what records name")


def test_a_client_that_goes_away_in_the_middle_leaves_nothing_while_the_server_runs_on(data: Path) -> None:
    with ServerProcess(data) as server:

        def body() -> Iterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            yield b"x" * 9_000_000
            wait_until(lambda: stored(data) > 0, "the first bytes to be written")
            raise httpx.ReadError("gone")

        with contextlib.suppress(httpx.HTTPError):
            headers = {"content-type": "multipart/form-data; boundary=b"}
            httpx.post(f"{server.base_url}/files", content=body(), headers=headers, timeout=60)
        wait_until(lambda: stored(data) == 0, "the bytes to be freed")
        assert server.alive()
