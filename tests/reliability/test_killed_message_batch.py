"""SIGKILL costs a message batch nothing but time, and what was being created leaves nothing."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import anthropic
import pytest
from watched_batch import Journal, peek, wait_until

from server_process import ServerProcess

ROWS = 300


def client_of(server: ServerProcess) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.base_url.removesuffix("/v1"), api_key="unused", max_retries=0)


def request(row: int) -> dict[str, Any]:
    params = {"model": "simulated", "max_tokens": 0 if row % 10 == 3 else 8}
    return {
        "custom_id": f"row-{row}",
        "params": params | {"messages": [{"role": "user", "content": f"Rate row-{row}"}]},
    }


def test_every_request_has_one_result_whenever_the_server_was_killed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    options = ["-O", f"journal={journal.path}", "-O", "latency=0.05", "-O", "slots=8"]
    server = ServerProcess(tmp_path / "data", *options)
    with server:
        made = client_of(server).messages.batches.create(requests=[request(row) for row in range(ROWS)])
        # At once: the batch was answered for.
        server.kill()
        for share in (0.3, 0.7):
            server.start()
            wait_until(lambda share=share: peek(server.data).counted >= share * ROWS, "rows to be counted")
            server.kill()
        server.start()
        wait_until(lambda: peek(server.data).status == "completed", "the batch to complete by itself")
        client = client_of(server)
        batch = client.messages.batches.retrieve(made.id)
        kinds = Counter(line.result.type for line in client.messages.batches.results(made.id))
        ids = [line.custom_id for line in client.messages.batches.results(made.id)]
        assert batch.request_counts.succeeded == kinds["succeeded"] == ROWS * 9 // 10
        assert batch.request_counts.errored == kinds["errored"] == ROWS // 10
        assert sorted(ids) == sorted(f"row-{row}" for row in range(ROWS))
        # What was in flight at the kills, and nothing else, was asked again.
        times = Counter(journal.rows())
        assert len(times) == ROWS * 9 // 10 and sum(times.values()) <= ROWS * 9 // 10 + 2 * 2 * 8
        client.messages.batches.delete(made.id)
        server.kill()
        server.start()
        with pytest.raises(anthropic.NotFoundError):
            client_of(server).messages.batches.retrieve(made.id)


def test_a_kill_while_requests_arrive_leaves_nothing(tmp_path: Path) -> None:
    body = json.dumps({"requests": [request(row) | {"custom_id": f"r-{row}"} for row in range(60_000)]}).encode()
    head = (
        "POST /v1/messages/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"anthropic-version: 2023-06-01\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with ServerProcess(tmp_path / "data") as server:
        address = ("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]))
        with socket.create_connection(address) as connection:
            connection.sendall(head + body[:-2])
            wait_until(lambda: bool(written(server.data)), "bytes to be written")
            server.kill()
        server.start()
        assert list(client_of(server).messages.batches.list()) == [] == server.client().files.list().data
        deadline = time.monotonic() + 30
        while written(server.data):
            assert time.monotonic() < deadline, written(server.data)
            time.sleep(0.05)


def written(data: Path) -> list[str]:
    return [path.name for path in (data / "blobs").rglob("*") if path.is_file()]
