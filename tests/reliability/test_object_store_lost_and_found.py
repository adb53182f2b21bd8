"""Files in an object store, with kills of the server and of the store: nothing is lost, every row is answered once."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from test_stop_and_resume import answered, submit
from watched_batch import Journal, peek, wait_until

from gristmill.batches.input_process import InputToRead, read_input
from gristmill.batches.input_reader import Limits
from gristmill.storage.blobs.open import open_blobs
from gristmill.storage.errors import BlobLost, StorageError
from requests_jsonl import CHAT, chat_file, chat_line, jsonl
from s3_server import BUCKET, S3Server
from server_process import ServerProcess

#: Rows of 40 kB: far more than the feed reads ahead, and than is read without a process of its own.
ROWS = 500
INPUT = jsonl([chat_line(f"row-{row}", f"{'x' * 40_000} row-{row}") for row in range(ROWS)])
NAMES = [f"row-{row}" for row in range(ROWS)]
SQL = "gristmill.storage.sql"
#: The start takes the first call of each.
BLOBS = "gristmill.storage.blobs.objects:ObjectBlobStore"


class Bucket:
    """What belongs to one test."""

    def __init__(self, server: S3Server, prefix: str) -> None:
        self._server = server
        self._prefix = prefix
        self.options = ("--blobs", f"s3://{BUCKET}/{prefix}")

    def files(self) -> dict[str, int]:
        return self._server.files(self._prefix)

    def unfinished(self) -> int:
        return self._server.unfinished(self._prefix)


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return Bucket(s3_server, tmp_path.name)


def killed_before(data: Path, place: str, call: int, *options: str) -> ServerProcess:
    server = ServerProcess(data, *options)
    server.program = (sys.executable, str(Path(__file__).with_name("killed_before.py")), place, str(call))
    return server


def test_nothing_is_left_of_an_upload_that_a_kill_has_cut_off(data: Path, bucket: Bucket) -> None:
    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 1_000_000
        wait_until(lambda: bucket.unfinished() > 0, "the first parts to be written")
        server.kill()
        yield b"x"

    with ServerProcess(data, *bucket.options) as server, contextlib.suppress(httpx.HTTPError):
        headers = {"content-type": "multipart/form-data; boundary=b"}
        httpx.post(f"{server.base_url}/files", content=body(), headers=headers, timeout=60)
    assert bucket.unfinished() == 1 and bucket.files() == {}
    with ServerProcess(data, *bucket.options):
        wait_until(lambda: bucket.unfinished() == 0, "the parts to be freed")
    assert bucket.files() == {}


@pytest.mark.parametrize(
    ("place", "call"),
    [
        pytest.param(f"{SQL}.rows:SqlRows.add", 2, id="while the input is read"),
        pytest.param(f"{BLOBS}.read", 3, id="while rows are answered"),
        pytest.param(f"{SQL}.batches:SqlBatches.change", 3, id="after the result files were written"),
        pytest.param(f"{BLOBS}.write", 3, id="before the result file is written"),
    ],
)
def test_a_batch_goes_on_after_a_kill(data: Path, bucket: Bucket, place: str, call: int) -> None:
    with killed_before(data, place, call, *bucket.options) as server:
        batch_id = submit(server.client(), INPUT)
        wait_until(lambda: not server.alive(), "the server to be killed")
    with ServerProcess(data, *bucket.options) as server:
        client = server.client()
        assert answered(client, batch_id) == NAMES
        batch = client.batches.retrieve(batch_id)
        named = {f"files/{batch.input_file_id}", f"files/{batch.output_file_id}"}
        wait_until(lambda: set(bucket.files()) == named, "nothing but what records name")
        for file_id in (batch.input_file_id, batch.output_file_id):
            client.files.delete(str(file_id))
        assert bucket.files() == {} and bucket.unfinished() == 0


def test_a_batch_waits_for_a_store_that_is_away_and_asks_no_row_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "journal")
    with S3Server(tmp_path / "s3") as store:
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        options = (
            "--blobs",
            f"s3://{BUCKET}/away",
            "-O",
            f"journal={journal.path}",
            "-O",
            "latency=0.05",
            "-O",
            "slots=4",
        )
        with ServerProcess(data, *options) as server:
            client = server.client(max_retries=0)
            batch_id = submit(client, INPUT)
            wait_until(lambda: peek(data).counted > 20, "some rows")
            store.suspend()
            counted = peek(data).counted
            wait_until(lambda: peek(data).counted > counted + 8, "rows that have been read to be answered")
            store.kill()
            wait_until(lambda: any("cannot be reached" in line for line in server.log), "the server to say so")
            url = f"{server.base_url}/files/{client.batches.retrieve(batch_id).input_file_id}/content"
            refused = httpx.get(url, timeout=120)
            assert refused.status_code == 503 and "cannot be reached" in refused.json()["error"]["message"]
            assert client.batches.retrieve(batch_id).status == "in_progress"
            store.start()
            assert answered(client, batch_id) == NAMES
    assert max(Counter(journal.rows()).values()) == 1


async def test_a_process_that_reads_an_input_says_whether_the_store_is_away_or_has_lost_it(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = bucket.options[1]
    source = InputToRead(location, "files/a", 50_000_000, CHAT, None, {}, {}, Limits(), str(tmp_path))
    with pytest.raises(BlobLost):
        await anext(read_input(source, open_blobs(location)))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(StorageError, match="cannot be reached") as raised:
        await anext(read_input(source, open_blobs(location)))
    assert not isinstance(raised.value, BlobLost)


def test_a_server_does_not_start_without_its_store(data: Path, bucket: Bucket) -> None:
    server = ServerProcess(data, "--blobs", "s3://no-such-bucket/x")
    with pytest.raises(
        AssertionError, match="Error: The blob store s3://no-such-bucket/x cannot be used: There is no bucket"
    ):
        server.start()
    wait_until(lambda: not server.alive(), "the server to end")
    with ServerProcess(data, *bucket.options) as running:
        assert answered(running.client(), submit(running.client(), chat_file(3))) == NAMES[:3]
