"""A server over the embedded engine: its worker dies, stops, and meets hostile rows."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from server_process import ServerProcess


@pytest.fixture(scope="module")
def embedded_server(pulled_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ["--engine", "openvino", "--model", pulled_model, "-O", "kv_cache_gb=0.3"]
    with ServerProcess(tmp_path_factory.mktemp("data"), *options) as running:
        yield running


def worker(server: ServerProcess) -> psutil.Process:
    (found,) = (each for each in psutil.Process(server.pid).children() if "embedded.worker" in " ".join(each.cmdline()))
    return found


def get(server: ServerProcess, path: str) -> httpx.Response:
    return httpx.get(server.base_url.removesuffix("/v1") + path, timeout=30)


def metric(server: ServerProcess, name: str) -> float:
    return next(float(line.split()[1]) for line in get(server, "/metrics").text.splitlines() if line.startswith(name))


def eventually(what: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_worker_is_in_the_log_and_ready_follows_without_a_request(embedded_server: ServerProcess) -> None:
    assert get(embedded_server, "/ready").status_code == 200
    assert metric(embedded_server, "gristmill_engine_up ") == 1
    worker(embedded_server).kill()
    eventually(lambda: get(embedded_server, "/ready").status_code == 503)
    assert "SIGKILL" in get(embedded_server, "/ready").json()["reason"]
    assert metric(embedded_server, "gristmill_engine_up ") == 0
    eventually(lambda: get(embedded_server, "/ready").status_code == 200)
    assert metric(embedded_server, "gristmill_engine_up ") == 1
    assert metric(embedded_server, "gristmill_engine_restarts_total ") == 1
    ended = [line for line in embedded_server.log if "process ended" in line]
    assert len(ended) == 1
    assert "SIGKILL" in ended[0]


def test_a_stopped_worker_is_not_ready_until_it_goes_on(embedded_server: ServerProcess) -> None:
    stopped = worker(embedded_server)
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        eventually(lambda: get(embedded_server, "/ready").status_code == 503, seconds=40)
        assert "has not answered for" in get(embedded_server, "/ready").json()["reason"]
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    eventually(lambda: get(embedded_server, "/ready").status_code == 200, seconds=20)
    assert worker(embedded_server).pid == stopped.pid


def deep(levels: int) -> dict:
    schema: dict = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


HOSTILE: dict[str, dict] = {
    "bias": {"logit_bias": {"1" * 5000: 1}},
    "schema-text": {"structured_outputs": {"json": "[" * 5000 + "]" * 5000}},
    "schema-deep": {"structured_outputs": {"json": deep(200)}},
    "regex-deep": {"structured_outputs": {"regex": "(" * 20000 + "a" + ")" * 20000}},
    "regex-explodes": {"structured_outputs": {"regex": "(a{1000}b){1000}"}},
    "constant": {"structured_outputs": {"json": {"const": 10**300}}},
    "circle": {"structured_outputs": {"json": {"$ref": "#"}}},
    "long-stop": {"stop": "x" * 1_000_000, "logit_bias": {str(2**70): 1}},
}


def test_hostile_rows_of_a_batch_are_errors_of_their_own(embedded_server: ServerProcess, tmp_path: Path) -> None:
    pid, restarts = worker(embedded_server).pid, metric(embedded_server, "gristmill_engine_restarts_total ")
    rows = {f"ordinary-{i}": {"messages": [{"role": "user", "content": f"Count to {i}."}]} for i in range(40)}
    for name, parameters in HOSTILE.items():
        rows[name] = {"messages": [{"role": "user", "content": "Hello."}], **parameters}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "smollm2-135m-instruct", "max_tokens": 4, **body}}
        for name, body in rows.items()
    ]  # fmt: skip
    # Hostile ones first, in the middle and last.
    lines = lines[40:43] + lines[:20] + lines[43:45] + lines[20:40] + lines[45:]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    client = embedded_server.client()
    file = client.files.create(file=source, purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    end = time.monotonic() + 240
    while batch.status not in ("completed", "failed"):
        assert time.monotonic() < end, batch
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch.errors
    answered = {json.loads(line)["custom_id"] for line in client.files.content(batch.output_file_id).text.splitlines()}
    assert answered == {name for name in rows if name.startswith("ordinary")}
    errors = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
    assert {error["custom_id"] for error in errors} == set(HOSTILE)
    assert {error["response"]["status_code"] for error in errors} == {400}
    assert worker(embedded_server).pid == pid
    assert metric(embedded_server, "gristmill_engine_restarts_total ") == restarts
