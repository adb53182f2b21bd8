"""A creating request that is sent again with its ``Idempotency-Key``."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from contract import check_error

from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

BATCH = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", "metadata": {"run": "1"}}
UPLOAD = {"bytes": 10, "filename": "f", "mime_type": "m", "purpose": "user_data"}
#: The body that is sent twice, and others that only resemble it.
Send = Callable[[httpx.Client, str, int], httpx.Response]


def send_batch(http: httpx.Client, key: str, variant: int = 0) -> httpx.Response:
    others = [{}, {"metadata": {"run": "2"}}, {"completion_window": "25h"}, {"defaults": {"seed": 1}}]
    return http.post("/batches", json=BATCH | others[variant], headers={"Idempotency-Key": key})


def send_upload(http: httpx.Client, key: str, variant: int = 0) -> httpx.Response:
    others = [{}, {"bytes": 11}, {"filename": "g"}, {"purpose": "vision"}]
    return http.post("/uploads", json=UPLOAD | others[variant], headers={"Idempotency-Key": key})


def send_file(http: httpx.Client, key: str, variant: int = 0) -> httpx.Response:
    content = chat_file(200) if variant != 1 else chat_file(200).replace(b"1", b"2", 1)
    fields = {"purpose": "user_data" if variant == 2 else "batch"}
    files = {"file": ("b.jsonl" if variant == 3 else "a.jsonl", content)}
    return http.post("/files", data=fields, files=files, headers={"Idempotency-Key": key})


CALLS: dict[str, Send] = {"batch": send_batch, "upload": send_upload, "file": send_file}


def count(server: ServerProcess, kind: str) -> int:
    table = {"batch": "batches", "upload": "uploads", "file": "files"}[kind]
    connection = sqlite3.connect(server.data / "gristmill.db")
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    finally:
        connection.close()


@pytest.fixture
def key() -> str:
    return secrets.token_hex(8)


@pytest.mark.parametrize("kind", CALLS)
def test_the_same_key_and_body_create_once_and_get_the_first_answer(
    server: ServerProcess, http: httpx.Client, kind: str, key: str
) -> None:
    first = CALLS[kind](http, key, 0).raise_for_status()
    before = count(server, kind)
    again = CALLS[kind](http, key, 0)
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["content-type"] == "application/json"
    assert count(server, kind) == before


@pytest.mark.parametrize("kind", CALLS)
def test_another_key_or_none_creates_another(server: ServerProcess, http: httpx.Client, kind: str, key: str) -> None:
    assert CALLS[kind](http, key, 0).json()["id"] != CALLS[kind](http, key + "x", 0).json()["id"]


@pytest.mark.parametrize("variant", [1, 2, 3])
@pytest.mark.parametrize("kind", CALLS)
def test_the_same_key_with_another_body_is_refused_and_creates_nothing(
    server: ServerProcess, http: httpx.Client, kind: str, variant: int, key: str
) -> None:
    CALLS[kind](http, key, 0).raise_for_status()
    before = count(server, kind)
    other = CALLS[kind](http, key, variant)
    assert other.status_code == 400
    check_error(other.json())
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert count(server, kind) == before


def test_a_key_of_one_call_is_not_one_of_another(http: httpx.Client, key: str) -> None:
    send_batch(http, key).raise_for_status()
    assert send_upload(http, key).json()["error"]["code"] == "idempotency_key_reused"


def test_a_request_that_was_refused_leaves_its_key_free(http: httpx.Client, key: str) -> None:
    headers = {"Idempotency-Key": key}
    assert http.post("/batches", json=BATCH | {"completion_window": "soon"}, headers=headers).status_code == 400
    assert send_batch(http, key).status_code == 200


@pytest.mark.parametrize("given", ["", "x" * 256, "a\tb", "\u00e9"])
@pytest.mark.parametrize("kind", ["batch", "file"])
def test_a_key_that_is_none_is_refused(http: httpx.Client, given: str, kind: str) -> None:
    files: dict[str, Any] = {"data": {"purpose": "user_data"}, "files": {"file": b"x"}}
    path, body = ("/batches", {"json": BATCH}) if kind == "batch" else ("/files", files)
    answer = http.post(path, headers={"Idempotency-Key": given.encode()}, **body)  # type: ignore[dict-item]
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "Idempotency-Key"


@pytest.mark.parametrize("kind", CALLS)
def test_of_duplicates_at_the_same_time_one_creates_and_all_get_its_answer(
    server: ServerProcess, http: httpx.Client, kind: str, key: str
) -> None:
    before = count(server, kind)
    together = threading.Barrier(8)

    def send(_: int) -> httpx.Response:
        together.wait()
        return CALLS[kind](http, key, 0)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(send, range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.text for answer in answers}) == 1
    assert count(server, kind) == before + 1
    blobs = [path for path in (server.data / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == count(server, "file")


def test_an_upload_completed_twice_is_one_file(server: ServerProcess, http: httpx.Client, key: str) -> None:
    upload = http.post("/uploads", json=UPLOAD).json()["id"]
    part = http.post(f"/uploads/{upload}/parts", files={"data": b"0123456789"}).json()["id"]

    def complete(md5: str | None = None, with_key: bool = True) -> httpx.Response:
        headers = {"Idempotency-Key": key} if with_key else {}
        return http.post(f"/uploads/{upload}/complete", json={"part_ids": [part], "md5": md5}, headers=headers)

    first = complete().raise_for_status()
    before = count(server, "file")
    assert complete().json() == first.json()
    assert complete("0" * 32).json()["error"]["code"] == "idempotency_key_reused"
    assert "is completed" in complete(with_key=False).json()["error"]["message"]
    assert count(server, "file") == before


def test_an_upload_completed_by_duplicates_at_the_same_time_is_one_file(
    server: ServerProcess, http: httpx.Client, key: str
) -> None:
    size = 3_000_000
    before = count(server, "file")
    upload = http.post("/uploads", json=UPLOAD | {"bytes": 3 * size}).json()["id"]
    parts = [http.post(f"/uploads/{upload}/parts", files={"data": b"x" * size}).json()["id"] for _ in range(3)]
    together = threading.Barrier(8)

    def complete(_: int) -> httpx.Response:
        together.wait()
        headers = {"Idempotency-Key": key}
        return http.post(f"/uploads/{upload}/complete", json={"part_ids": parts}, headers=headers)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(complete, range(8)))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert count(server, "file") == before + 1
    assert len(http.get(f"/files/{answers[0].json()['file']['id']}/content").content) == 3 * size


def test_a_key_is_remembered_across_a_restart_for_a_day(tmp_path: Path, key: str) -> None:
    data = tmp_path / "data"
    with ServerProcess(data) as server, httpx.Client(base_url=server.base_url) as http:
        first = send_batch(http, key).json()
    with ServerProcess(data) as server, httpx.Client(base_url=server.base_url) as http:
        assert send_batch(http, key).json() == first
    connection = sqlite3.connect(data / "gristmill.db")
    with connection:
        assert connection.execute("UPDATE idempotency_keys SET used_at = used_at - 86400").rowcount == 1
    connection.close()
    with ServerProcess(data) as server, httpx.Client(base_url=server.base_url) as http:
        assert send_batch(http, key, 1).json()["id"] != first["id"]


def test_a_body_at_the_edge_of_what_can_be_read_is_told_the_same_with_a_key_as_without(
    http: httpx.Client, key: str
) -> None:
    statuses = set()
    for depth in [255, 256, *range(900, 1010)]:
        defaults = '{"a":' * depth + "1" + "}" * depth
        body = json.dumps(BATCH)[:-1] + f', "defaults": {defaults}}}'
        headers = {"Content-Type": "application/json"}
        without = http.post("/batches", content=body, headers=headers)
        answer = http.post("/batches", content=body, headers=headers | {"Idempotency-Key": f"{key}{depth}"})
        assert answer.status_code == without.status_code, f"{depth} levels: {answer.text}"
        statuses.add(answer.status_code)
    assert statuses == {200, 400}
