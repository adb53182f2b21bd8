from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from gristmill.models.catalog import DEFAULT_MODEL
from gristmill.models.locate import locate
from gristmill.user_error import UserError
from server_process import ServerProcess

#: One request at a time, a minute each: only a request that is given up makes way.
BUSY = ("--engine-option", "slots=1", "--engine-option", "latency=60")
CHAT = {"model": "simulated", "messages": [{"role": "user", "content": "Hi"}]}
SEVERAL = {"model": "simulated", "prompt": ["one", "two", "three"]}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat/completions", CHAT),
    "a stream before its first text": ("/chat/completions", CHAT | {"stream": True}),
    "a response": ("/responses", {"model": "simulated", "input": "Hi"}),
    "a response's stream": ("/responses", {"model": "simulated", "input": "Hi", "stream": True}),
    "several prompts": ("/completions", SEVERAL),
    "a text stream": ("/completions", SEVERAL | {"prompt": "one", "stream": True}),
    "scores": ("/score", {"model": "simulated", "query": "q", "items": ["a", "b", "c"], "labels": ["0", "1"]}),
}


def send(server: ServerProcess, path: str, body: dict[str, Any]) -> socket.socket:
    url = urlsplit(server.base_url)
    opened = socket.create_connection((url.hostname, url.port), timeout=30)
    data = json.dumps(body).encode()
    head = f"POST {url.path}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    opened.sendall(head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return opened


def in_flight(server: ServerProcess) -> float:
    text = httpx.get(f"{server.base_url.removesuffix('/v1')}/metrics").text
    found = [line for line in text.splitlines() if line.startswith("gristmill_requests_in_flight ")]
    return float(found[0].split()[1])


def wait_until_in_flight(server: ServerProcess, count: int) -> None:
    for _ in range(200):
        if in_flight(server) == count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{in_flight(server)} requests are in flight, not {count}")


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_whose_client_leaves_is_given_up_with_all_it_asked(tmp_path: Path, kind: str) -> None:
    journal = tmp_path / "answered"
    options = ("--engine-option", "slots=2", "--engine-option", "latency=60", "--engine-option", f"journal={journal}")
    with ServerProcess(tmp_path / "data", *options) as server:
        path, body = REQUESTS[kind]
        clients = [send(server, path, body) for _ in range(10)]
        wait_until_in_flight(server, 2)
        for client in clients:
            client.close()
        wait_until_in_flight(server, 0)
        assert journal.read_text() == ""
        assert not any("Traceback" in line or "unexpectedly" in line for line in server.log)


def test_a_client_that_half_closes_or_times_out_frees_its_place(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", *BUSY) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.base_url}/chat/completions", json=CHAT, timeout=0.5)
        wait_until_in_flight(server, 0)
        client = send(server, "/chat/completions", CHAT)
        wait_until_in_flight(server, 1)
        client.shutdown(socket.SHUT_RDWR)
        wait_until_in_flight(server, 0)


def test_one_prompt_that_fails_does_not_leave_its_siblings_running(tmp_path: Path) -> None:
    options = ("--engine-option", "slots=8", "--engine-option", "latency=60", "--engine-option", "fail_on=bad")
    with ServerProcess(tmp_path / "data", *options) as server:
        answer = httpx.post(f"{server.base_url}/completions", json=SEVERAL | {"prompt": ["one", "two", "bad"]})
        assert answer.status_code == 500
        wait_until_in_flight(server, 0)


def test_the_embedded_engine_stops_computing_for_a_client_that_has_left(tmp_path: Path) -> None:
    pytest.importorskip("openvino_genai", reason="pip install 'gristmill[embedded]' to run this")
    try:
        locate(DEFAULT_MODEL)
    except UserError as error:
        pytest.skip(str(error))
    body = {"model": DEFAULT_MODEL, "prompt": "Once upon a time", "max_tokens": 4000, "n": 2, "logit_bias": {"0": -100}}
    with ServerProcess(tmp_path / "data", "--engine", "openvino") as server:
        clients = [send(server, "/completions", body | {"prompt": f"{index} times a"}) for index in range(6)]
        wait_until_in_flight(server, 6)
        for client in clients:
            client.close()
        wait_until_in_flight(server, 0)
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        for _ in range(100):
            before = sum(sum(each.cpu_times()[:2]) for each in processes)
            time.sleep(0.5)
            if sum(sum(each.cpu_times()[:2]) for each in processes) - before < 0.1:
                return
        raise AssertionError("the engine goes on computing")
