"""A server whose standard error is a trap: nobody reads it, or its disk is full. Batches run all the same."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from requests_jsonl import CHAT, chat_file

#: More than a pipe and the queue behind it hold.
REFUSALS = 6_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unread() -> tuple[int, Callable[[], None]]:
    read_end, write_end = os.pipe()
    return write_end, lambda: os.close(read_end)


def broken() -> tuple[int, Callable[[], None]]:
    read_end, write_end = os.pipe()
    os.close(read_end)
    return write_end, lambda: None


def full_disk() -> tuple[int, Callable[[], None]]:
    return os.open("/dev/full", os.O_WRONLY), lambda: None


@pytest.fixture(params=[unread, broken, full_disk])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    descriptor, tidy = request.param()
    port = free_port()
    command = [sys.executable, "-m", "gristmill", "serve", "--engine", "simulated", "--port", str(port)]
    command += ["--data", str(tmp_path / "data"), "--log-level", "debug"]
    process = subprocess.Popen(command, stdout=descriptor, stderr=descriptor)
    os.close(descriptor)
    root = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{root}/health")
                break
            assert process.poll() is None
            time.sleep(0.05)
        yield root, process
    finally:
        process.kill()
        process.wait()
        tidy()


def test_a_log_that_goes_nowhere_stops_no_server_and_no_batch(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    root, process = server
    with httpx.Client(base_url=root, headers={"host": "evil.example"}) as refused:
        for _ in range(REFUSALS):
            assert refused.get("/v1/files").status_code == 403
    client = openai.OpenAI(base_url=f"{root}/v1", api_key="unused", timeout=30, max_retries=0)
    file = client.files.create(file=chat_file(20), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    while client.batches.retrieve(batch.id).status != "completed":
        time.sleep(0.05)
    lost = [line for line in httpx.get(f"{root}/metrics").text.splitlines() if "lost_log_lines_total " in line]
    assert float(lost[-1].split()[-1]) > 1_000
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0


def test_a_first_key_that_nobody_reads_is_told_of_and_stops_no_server(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "gristmill", "serve", "--engine", "simulated", "--port", "0", "--host", "0.0.0.0"]
    command += ["--data", str(tmp_path / "data")]
    process = subprocess.Popen(command, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert process.stderr is not None
    try:
        told = []
        while not told or "is ready" not in told[-1]:
            told.append(process.stderr.readline())
            assert told[-1], told
        assert "its first one could not be shown" in told[0] and "admin key add" in "".join(told)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
