from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import psutil
import pytest
from contract import check_error

from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

MEGABYTE = 1024 * 1024
ASK: dict[str, Any] = {"model": "simulated", "messages": [{"role": "user", "content": "Hi"}]}


class HastyServer(ServerProcess):
    program = (sys.executable, str(Path(__file__).with_name("hasty_server.py")))


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with HastyServer(tmp_path_factory.mktemp("data")) as running:
        yield running


def connect(server: ServerProcess, data: bytes = b"", timeout: float = 30) -> socket.socket:
    url = urlsplit(server.base_url)
    opened = socket.create_connection((url.hostname, url.port), timeout=timeout)
    opened.sendall(data)
    return opened


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def everything(opened: socket.socket) -> bytes:
    """What the server still sends, until it closes the connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while chunk := opened.recv(MEGABYTE):
            data += chunk
    return data


def check_answer(data: bytes, status: int) -> dict[str, Any]:
    start, _, body = data.partition(b"\r\n\r\n")
    assert start.startswith(f"HTTP/1.1 {status} ".encode()), data[:200]
    assert b"x-request-id: req_" in start and b"content-type: application/json" in start
    error = json.loads(body)
    check_error(error)
    return dict(error["error"])


def closes_while_fed(opened: socket.socket, drop: bytes) -> bool:
    """Whether the server closes a connection that gets a drop every now and then."""
    opened.settimeout(0.1)
    for _ in range(300):
        try:
            opened.sendall(drop)
            if opened.recv(65536) == b"":
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


def test_a_client_that_says_nothing_is_left(hasty: ServerProcess) -> None:
    assert everything(connect(hasty)) == b""


def test_headers_that_trickle_end_in_a_408(hasty: ServerProcess) -> None:
    opened = connect(hasty, b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
    check_answer(everything(opened), 408)
    assert closes_while_fed(connect(hasty, b"GET /health HTTP/1.1\r\nHost: localhost\r\n"), b"a: b\r\n")
    assert closes_while_fed(connect(hasty), b"\r\n")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/batches"])
def test_a_body_that_stops_or_trickles_ends_in_a_408(hasty: ServerProcess, path: str) -> None:
    opened = connect(hasty, head(path, "Content-Length: 1000") + b'{"model": ')
    assert check_answer(everything(opened), 408)["code"] == "request_timeout"
    assert closes_while_fed(connect(hasty, head(path, "Content-Length: 100000")), b" ")


def test_an_upload_that_stops_ends_in_a_408_and_keeps_nothing(hasty: ServerProcess) -> None:
    form = "Content-Type: multipart/form-data; boundary=edge"
    begun = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 100_000
    request = head("/v1/files", "Content-Length: 1000000").replace(b"Content-Type: application/json", form.encode())
    check_answer(everything(connect(hasty, request + begun)), 408)
    assert [path for path in (hasty.data / "blobs").rglob("*") if path.is_file()] == []


def test_a_body_that_nobody_reads_does_not_keep_a_connection(hasty: ServerProcess) -> None:
    for path in ("/v1/nowhere", "/v1/batches/batch_x/cancel"):
        opened = connect(hasty, head(path, "Content-Length: 1000000"))
        assert opened.recv(65536).startswith(b"HTTP/1.1 404 ")
        assert closes_while_fed(opened, b" ")


def test_an_idle_connection_is_closed_and_a_used_one_is_not(hasty: ServerProcess) -> None:
    opened = connect(hasty)
    for _ in range(6):
        opened.sendall(head("/health", method="GET"))
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):
            answer += opened.recv(65536)
        time.sleep(0.5)
    assert everything(opened) == b""


def test_a_reader_who_takes_nothing_is_left_and_a_slow_one_is_not(hasty: ServerProcess) -> None:
    data = bytes(40 * MEGABYTE)
    file = hasty.client().files.create(file=data, purpose="user_data")
    process = psutil.Process(hasty.pid)
    request = head(f"/v1/files/{file.id}/content", "Connection: close", method="GET")
    lazy, slow = connect(hasty, request), connect(hasty, request)
    received = 0
    # Slower than the kernel's buffers drain: some 12 seconds in all.
    while chunk := slow.recv(MEGABYTE, socket.MSG_WAITALL):
        received += len(chunk)
        time.sleep(0.3)
    assert received > len(data)
    for _ in range(100):
        established = [each for each in process.net_connections() if each.status == psutil.CONN_ESTABLISHED]
        if not established:
            break
        time.sleep(0.1)
    assert established == []
    with contextlib.suppress(ConnectionError):
        assert len(everything(lazy)) < len(data)


@pytest.mark.parametrize("size", [100_000, 20 * MEGABYTE])
def test_headers_that_are_too_large_are_a_431_and_take_no_memory(hasty: ServerProcess, size: int) -> None:
    before = psutil.Process(hasty.pid).memory_info().rss
    for line in (b"GET /health HTTP/1.1\r\nHost: localhost\r\nx: ", b"GET /"):
        opened = connect(hasty, line)
        with contextlib.suppress(ConnectionError):
            for _ in range(size // 10_000):
                opened.sendall(b"a" * 10_000)
        assert check_answer(everything(opened), 431)["type"] == "invalid_request_error"
    assert psutil.Process(hasty.pid).memory_info().rss - before < 10 * MEGABYTE


def test_many_small_headers_are_a_431(hasty: ServerProcess) -> None:
    opened = connect(hasty, b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
    with contextlib.suppress(ConnectionError):
        opened.sendall(b"a: b\r\n" * 50_000 + b"\r\n")
    check_answer(everything(opened), 431)


def test_trailers_without_end_close_the_connection(server: ServerProcess) -> None:
    opened = connect(server, head("/v1/batches", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n")
    with pytest.raises(ConnectionError):
        for _ in range(20_000):
            opened.sendall(b"trailer: " + b"x" * 1000 + b"\r\n")


def test_a_flood_of_pipelined_requests_closes_the_connection(server: ServerProcess) -> None:
    body = json.dumps(ASK).encode()
    opened = connect(server, head("/v1/chat/completions", f"Content-Length: {len(body)}") + body)
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            opened.sendall(head("/health", method="GET") * 100)


def test_what_is_not_http_is_a_400(hasty: ServerProcess) -> None:
    check_answer(everything(connect(hasty, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")), 400)


def test_connections_beyond_the_limit_get_a_503_that_says_so(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--max-connections", "8") as server:
        idle = [connect(server) for _ in range(8)]
        crowded = httpx.get(f"{server.base_url}/models")
        assert crowded.status_code == 503 and crowded.headers["retry-after"] == "1"
        check_error(crowded.json())
        assert crowded.json()["error"]["code"] == "too_many_connections"
        more = [connect(server) for _ in range(200)]
        for opened in idle + more:
            opened.close()
        # The official client tries again by itself.
        assert [model.id for model in server.client(max_retries=5).models.list()] == ["simulated"]


def form(*parts: tuple[str, str | None, bytes]) -> Iterator[bytes]:
    for name, filename, data in parts:
        file = f'; filename="{filename}"' if filename else ""
        yield f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    yield b"--edge--\r\n"


FORM = {"content-type": "multipart/form-data; boundary=edge"}
FILE = ("file", "a.jsonl", chat_file(1))
LARGE_FORMS = {
    "unknown fields": [*((f"x{index}", None, b"y" * 60_000) for index in range(100)), FILE],
    "tiny fields": [*((f"x{index}", None, b"") for index in range(20_000)), FILE],
    "fields after the file": [FILE, *((f"x{index}", None, b"y" * 60_000) for index in range(100))],
    "more files": [FILE] * 2 + [("file", "b.jsonl", b"y" * 60_000)] * 10,
}


@pytest.mark.parametrize("kind", LARGE_FORMS)
def test_a_form_of_more_than_its_file_and_a_little_is_refused(http: httpx.Client, kind: str) -> None:
    answer = http.post("/files", content=b"".join(form(*LARGE_FORMS[kind])), headers=FORM)
    assert answer.status_code == 413
    check_error(answer.json())
    assert "besides its file" in answer.json()["error"]["message"]


def test_a_field_a_part_header_and_a_filename_that_are_too_long_are_400(http: httpx.Client) -> None:
    for parts in ([("x", None, b"y" * 70_000), FILE], [("x" * 20_000, None, b""), FILE], [("file", "f" * 600, b"{}")]):
        answer = http.post("/files", content=b"".join(form(*parts)), headers=FORM)  # type: ignore[arg-type]
        assert answer.status_code == 400 and len(answer.content) < 2000
        check_error(answer.json())
    padded = b"--edge\r\n" + b"a: b\r\n" * 60_000 + b"\r\n\r\n--edge--\r\n"
    assert http.post("/files", content=padded, headers=FORM).status_code in (400, 413)


def test_bytes_after_the_forms_end_are_not_taken_for_ever(http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        yield from form(FILE, ("purpose", None, b"batch"))
        for _ in range(50):
            yield b"x" * 60_000

    assert http.post("/files", content=endless(), headers=FORM).status_code == 413


def test_a_file_that_is_large_and_a_form_that_is_not_pass(client: openai.OpenAI) -> None:
    data = bytes(3 * MEGABYTE)
    assert client.files.create(file=data, purpose="user_data").bytes == len(data)


def create(http: httpx.Client, **more: Any) -> httpx.Response:
    request = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"} | more
    return http.post("/batches", json=request)


def test_defaults_are_limited_and_not_read_for_lists(http: httpx.Client, server: ServerProcess) -> None:
    too_long = create(http, defaults={"messages": [{"role": "system", "content": "x" * MEGABYTE}]})
    assert too_long.status_code == 400
    assert (too_long.json()["error"]["param"], too_long.json()["error"]["code"]) == (
        "defaults", "object_above_max_size",
    )  # fmt: skip
    assert create(http, defaults={"user": "x" * 20 * MEGABYTE}).status_code == 413
    long = {"messages": [{"role": "system", "content": "x" * (MEGABYTE - 1000)}]}
    for _ in range(15):
        assert create(http, defaults=long).status_code == 200
    listed = http.get("/batches", params={"limit": 100})
    assert listed.status_code == 200 and len(listed.content) < 50_000
    assert "xxxx" not in listed.text


def test_what_a_batch_or_upload_is_given_to_remember_is_limited(http: httpx.Client) -> None:
    for more in ({"input_file_id": "f" * 1000}, {"completion_window": "9" * 100_000}, {"endpoint": "/" * 100_000}):
        answer = create(http, **more)
        assert answer.status_code == 400 and len(answer.content) < 2000
        check_error(answer.json())
    upload = {"bytes": 1, "filename": "f" * 1000, "mime_type": "x", "purpose": "batch"}
    assert http.post("/uploads", json=upload).status_code == 400
    assert len(http.post("/uploads", json=upload | {"filename": "f", "purpose": "p" * 100_000}).content) < 2000
    for path in ("/files/" + "f" * 50_000, "/batches/" + "b" * 50_000, "/" + "x" * 50_000):
        assert http.get(path).status_code == 404 and len(http.get(path).content) < 2000


def test_bodies_in_memory_are_limited_over_all_requests(server: ServerProcess) -> None:
    """Eight requests of 60 MB are more than fit; the rest get a 503, and the room is given back."""
    size = 60 * MEGABYTE
    begun = [connect(server, head("/v1/chat/completions", f"Content-Length: {size}")) for _ in range(8)]

    def send(opened: socket.socket) -> bytes:
        with contextlib.suppress(ConnectionError):
            opened.sendall(b" " * (size - 1))
        opened.settimeout(3)
        with contextlib.suppress(TimeoutError, ConnectionError):
            return opened.recv(65536)
        return b""

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, begun))
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
    assert 4 <= len(refused) < 8
    for opened in begun:
        opened.close()
    ask = json.dumps(ASK | {"user": "x" * 30 * MEGABYTE})
    with httpx.Client(base_url=server.base_url, timeout=60, headers={"content-type": "application/json"}) as http:
        assert [http.post("/chat/completions", content=ask).status_code for _ in range(10)] == [200] * 10


def test_downloads_by_slow_readers_hold_little_memory(server: ServerProcess) -> None:
    file = server.client().files.create(file=("big", b"x" * 32 * MEGABYTE), purpose="user_data")
    process = psutil.Process(server.pid)
    before = process.memory_info().rss
    with contextlib.ExitStack() as readers:
        for _ in range(60):
            opened = readers.enter_context(connect(server, head(f"/v1/files/{file.id}/content", method="GET")))
            # It reads the beginning, and no more.
            assert opened.recv(1024).startswith(b"HTTP/1.1 200 ")
        time.sleep(1)
        grown = process.memory_info().rss - before
        # A megabyte each; it was ten.
        assert grown < 150 * MEGABYTE
