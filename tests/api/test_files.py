from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import httpx
import openai
import pytest

from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

MONTH = 2_592_000


def test_an_uploaded_file_is_processed_at_once_and_expires_in_thirty_days(
    client: openai.OpenAI, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(chat_file(3))
    file = client.files.create(file=path.open("rb"), purpose="batch")
    assert (file.object, file.status, file.filename, file.purpose) == ("file", "processed", "rows.jsonl", "batch")
    assert file.id.startswith("file-") and file.bytes == path.stat().st_size
    assert file.expires_at == file.created_at + MONTH
    assert client.files.retrieve(file.id) == file
    assert client.files.wait_for_processing(file.id, poll_interval=0.01, max_wait_seconds=1) == file
    assert client.files.content(file.id).content == path.read_bytes()


def test_bytes_without_a_name_are_accepted(client: openai.OpenAI) -> None:
    assert client.files.create(file=chat_file(1), purpose="batch").filename == "upload"


def test_only_batch_inputs_expire_by_default(client: openai.OpenAI) -> None:
    assert client.files.create(file=b"any text", purpose="user_data").expires_at is None


def test_the_client_can_set_an_expiry(client: openai.OpenAI) -> None:
    expiry = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=chat_file(1), purpose="batch", expires_after=expiry)  # type: ignore[arg-type]
    assert file.expires_at == file.created_at + 3600


def form(*parts: tuple[str, str | None, bytes]) -> httpx.Request:
    """A multipart body with its parts in exactly this order."""
    body = b""
    for name, filename, data in parts:
        file = f'; filename="{filename}"' if filename else ""
        body += f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    return httpx.Request("POST", "http://localhost", headers=headers, content=body + b"--edge--\r\n")


FILE = ("file", "a.jsonl", chat_file(1))
FIELDS = (
    ("purpose", None, b"batch"),
    ("expires_after[anchor]", None, b"created_at"),
    ("expires_after[seconds]", None, b"7200"),
)


@pytest.mark.parametrize("parts", [(*FIELDS, FILE), (FILE, *FIELDS), (FIELDS[0], FILE, *FIELDS[1:])])
def test_form_fields_may_come_before_and_after_the_file(
    http: httpx.Client, parts: tuple[tuple[str, str, bytes]]
) -> None:
    request = form(*parts)
    file = http.post("/files", headers=request.headers, content=request.content).raise_for_status().json()
    assert file["expires_at"] == file["created_at"] + 7200
    assert file["status_details"] is None


@pytest.mark.parametrize("seconds", [3599, MONTH + 1])
def test_an_expiry_outside_the_limits_is_refused(client: openai.OpenAI, seconds: int) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        expiry = {"anchor": "created_at", "seconds": seconds}
        client.files.create(file=chat_file(1), purpose="batch", expires_after=expiry)  # type: ignore[arg-type]
    assert refused.value.param == "expires_after.seconds"


@pytest.mark.parametrize("data", [b"", b"these are notes\n", b"{broken\n"])
def test_what_does_not_begin_as_jsonl_is_refused_at_upload(client: openai.OpenAI, data: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match="Must be .jsonl") as refused:
        client.files.create(file=data, purpose="batch")
    assert (refused.value.param, refused.value.code) == (None, None)


def test_an_unknown_purpose_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=chat_file(1), purpose="batch_output")  # type: ignore[arg-type]
    assert (refused.value.param, refused.value.code) == ("purpose", "invalid_value")


def test_a_deleted_file_is_gone_everywhere(client: openai.OpenAI) -> None:
    file = client.files.create(file=chat_file(1), purpose="batch")
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (file.id, True, "file")
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {file.id}") as gone:
            call(file.id)
        assert (gone.value.param, gone.value.code, gone.value.type) == ("id", None, "invalid_request_error")
    assert file.id not in [each.id for each in client.files.list()]


RANGES = {
    "bytes=0-9": (0, 10),
    "bytes=5-": (5, 100),
    "bytes=-7": (93, 100),
    "bytes=-1000": (0, 100),
    "bytes=90-1000": (90, 100),
    "bytes=99-99": (99, 100),
}


@pytest.mark.parametrize("asked", RANGES)
def test_a_range_of_a_file_can_be_downloaded(client: openai.OpenAI, asked: str) -> None:
    data = bytes(range(100))
    file = client.files.create(file=data, purpose="user_data")
    start, end = RANGES[asked]
    answer = client.files.with_raw_response.content(file.id, extra_headers={"range": asked})
    assert answer.http_response.status_code == 206
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/100"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.http_response.content == data[start:end]


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=200-300", "bytes=-0"])
def test_a_range_beyond_the_file_is_416_and_says_its_size(client: openai.OpenAI, asked: str) -> None:
    file = client.files.create(file=bytes(100), purpose="user_data")
    with pytest.raises(openai.APIStatusError) as refused:
        client.files.content(file.id, extra_headers={"range": asked})
    assert refused.value.status_code == 416
    assert refused.value.response.headers["content-range"] == "bytes */100"


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=9-5", "bytes=0-1,4-5", "bytes=-"])
def test_a_range_that_is_not_understood_gives_the_whole_file(client: openai.OpenAI, asked: str) -> None:
    file = client.files.create(file=bytes(100), purpose="user_data")
    answer = client.files.with_raw_response.content(file.id, extra_headers={"range": asked})
    assert answer.http_response.status_code == 200 and len(answer.http_response.content) == 100


def test_a_download_says_its_length_and_can_be_streamed(client: openai.OpenAI) -> None:
    data = chat_file(50)
    file = client.files.create(file=data, purpose="batch")
    with client.files.with_streaming_response.content(file.id) as answer:
        assert answer.headers["content-length"] == str(len(data))
        assert b"".join(answer.iter_bytes()) == data


def test_files_outlive_a_kill(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        file = server.client().files.create(file=chat_file(2), purpose="batch")
        server.kill()
        server.start()
        assert server.client().files.content(file.id).content == chat_file(2)


def test_an_expired_file_is_gone_at_once_also_before_its_bytes_are(
    server: ServerProcess, client: openai.OpenAI
) -> None:
    expired = client.files.create(file=chat_file(1), purpose="batch")
    with sqlite3.connect(server.data / "gristmill.db") as connection:
        connection.execute("UPDATE files SET expires_at = ? WHERE id = ?", (int(time.time()) - 1, expired.id))
    connection.close()
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(expired.id)
    assert expired.id not in [file.id for file in client.files.list()]
    batch = client.batches.create(input_file_id=expired.id, endpoint=CHAT, completion_window="24h")
    while batch.status == "validating":
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
    assert (batch.errors.data[0].message or "").startswith(f"Cannot find file {expired.id}")
