from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from gristmill.storage.sql.sqlite import SqliteDatabase
from requests_jsonl import chat_file
from server_process import ServerProcess

SECRET = "sk-SECRET"
HEADERS = f"Host: localhost\r\nAuthorization: Bearer {SECRET}\r\nCookie: {SECRET}\r\n"
JSON = f"{HEADERS}Content-Type: application/json\r\n"
FORM = f"{HEADERS}Content-Type: multipart/form-data; boundary=edge\r\n"
PART = f'--edge\r\nContent-Disposition: form-data; name="file"; filename="{SECRET}"\r\n\r\n{SECRET}'
ASK = f'{{"model": "simulated", "stream": STREAM, "messages": [{{"role": "user", "content": "{SECRET}"}}]}}'


def post(path: str, headers: str, length: int, body: str) -> str:
    return f"POST /v1{path}?key={SECRET} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}"


#: What a client has sent when it goes away, and the lines that the log may hold of it.
DROPS = {
    "in the request line": (f"GET /v1/files?{SECRET}", 0),
    "in the headers": (f"POST /v1/files?{SECRET} HTTP/1.1\r\n{HEADERS}", 0),
    "before the body": (post("/batches", JSON, 500, ""), 1),
    "in a JSON body": (post("/chat/completions", JSON, 500, f'{{"model": "{SECRET}"'), 1),
    "in an upload": (post("/files", FORM, 500_000, PART), 1),
    "in a part of an unknown upload": (post("/uploads/upload_x/parts", FORM, 500_000, PART), 0),
    "waiting for an answer": (post("/chat/completions", JSON, len(ASK) + 0, ASK.replace("STREAM", "false ")), 1),
    "in a stream": (post("/chat/completions", JSON, len(ASK) + 0, ASK.replace("STREAM", "true  ")), 1),
}


class FailingServer(ServerProcess):
    program = (sys.executable, str(Path(__file__).with_name("failing_server.py")))


@pytest.fixture(scope="module", params=[(), ("--log-json",)], ids=["console", "json"])
def slow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--engine-option", "decode_speed=2", "--log-level", "debug", *request.param)
    with FailingServer(tmp_path_factory.mktemp("data"), *options) as running:
        yield running


def new_lines(server: ServerProcess, before: int, expected: int) -> list[str]:
    """The log's lines since then, when there are ``expected`` ones and no more have come for a moment."""
    for _ in range(100):
        if len(server.log) - before >= expected:
            break
        time.sleep(0.1)
    time.sleep(0.5)
    return server.log[before:]


@pytest.mark.parametrize("where", DROPS)
def test_a_client_that_drops_leaves_one_line_at_most_and_no_secret(slow: ServerProcess, where: str) -> None:
    sent, expected = DROPS[where]
    url = urlsplit(slow.base_url)
    before = len(slow.log)
    with socket.create_connection((url.hostname, url.port)) as opened:
        opened.sendall(sent.encode())
        if "stream" in where:
            assert b"text/event-stream" in opened.recv(65536)
        time.sleep(0.5)
    lines = new_lines(slow, before, expected)
    # The end of a stream is told by nobody.
    assert len(lines) <= expected, lines
    assert SECRET not in "".join(lines)
    if expected and "stream" not in where:
        assert "client went away" in lines[0] and "POST" in lines[0]


def test_what_is_not_http_is_not_repeated(slow: ServerProcess) -> None:
    url, before = urlsplit(slow.base_url), len(slow.log)
    with socket.create_connection((url.hostname, url.port)) as opened:
        opened.sendall(f"BROKEN {SECRET}\r\n\r\n".encode())
        opened.recv(65536)
    lines = new_lines(slow, before, 1)
    assert len(lines) <= 1 and SECRET not in "".join(lines)


def test_a_defect_is_one_line_that_says_what_and_where(slow: ServerProcess) -> None:
    before = len(slow.log)
    answer = httpx.get(f"{slow.base_url}/files/file-broken?{SECRET}", headers={"authorization": SECRET})
    assert answer.status_code == 500 and answer.headers["x-request-id"].startswith("req_")
    assert answer.json()["error"]["type"] == "server_error" and "purpose" not in answer.text
    lines = new_lines(slow, before, 1)
    assert len(lines) == 1 and SECRET not in lines[0]
    assert "RuntimeError" in lines[0] and "broken on purpose" not in lines[0] and "failing_server" not in answer.text
    assert "__main__:18 get" in lines[0] and answer.headers["x-request-id"] in lines[0]
    if "--log-json" in slow._options:
        assert json.loads(lines[0])["path"] == "/v1/files/file-broken"
    else:
        assert "[31m" not in lines[0]


def test_an_answer_that_fails_in_the_middle_is_cut_off_and_one_line(slow: ServerProcess) -> None:
    file = slow.client().files.create(file=chat_file(10), purpose="batch")
    before = len(slow.log)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{slow.base_url}/files/{file.id}/content", headers={"authorization": SECRET})
    lines = new_lines(slow, before, 1)
    assert len(lines) == 1 and SECRET not in lines[0] and "error" in lines[0]


def test_ids_from_outside_cannot_write_lines_of_their_own(slow: ServerProcess) -> None:
    before = len(slow.log)
    forged = "%0a2026-01-01%20%5berror%5d%20forged%1b%5b31m%e2%80%a8%c2%9b"
    httpx.get(f"{slow.base_url}/files/file-broken", headers={"host": "evil.example"})
    httpx.get(f"{slow.base_url}/files{forged}", headers={"host": "evil.example"})
    url = urlsplit(slow.base_url)
    with socket.create_connection((url.hostname, url.port)) as opened:
        opened.sendall(f"POST /v1/batches/{forged}/cancel HTTP/1.1\r\n{HEADERS}Content-Length: 9\r\n\r\n".encode())
    with socket.create_connection((url.hostname, url.port)) as opened:
        opened.sendall(f"POST /v1/uploads/{forged}/complete HTTP/1.1\r\n{JSON}Content-Length: 9\r\n\r\n".encode())
        time.sleep(0.3)
    lines = new_lines(slow, before, 3)
    assert all("refused" in line or "client went away" in line for line in lines), lines
    assert "\x1b[31m" not in "".join(lines) and "\x9b" not in "".join(lines)


async def test_an_error_of_the_database_does_not_repeat_what_was_to_be_stored(tmp_path: Path) -> None:
    database = SqliteDatabase(f"sqlite:///{tmp_path / 'gristmill.db'}")
    statement = text("INSERT INTO absent VALUES (:secret)").bindparams(secret=SECRET)
    with pytest.raises(OperationalError) as failed:
        await database.write(lambda connection: connection.execute(statement))
    await database.close()
    assert "no such table" in str(failed.value) and SECRET not in str(failed.value)
