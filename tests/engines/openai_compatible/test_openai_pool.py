"""A pool of real Gristmill servers: rows outlive the death of one, and of all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from requests_jsonl import chat_file
from server_process import ServerProcess

ROWS = 400
#: So many that the run is not over before a server that has started again is asked.
LONG = 1600
SLOW = ("-O", "latency=0.05", "-O", "slots=8")


def endpoint(folder: Path, name: str, *options: str) -> ServerProcess:
    return ServerProcess(folder / name, "-O", f"journal={folder / name}.journal", *SLOW, *options)


def answered(folder: Path, name: str) -> list[str]:
    """The rows that endpoint has answered, by the name at the end of their prompt; not the probes."""
    journal = folder / f"{name}.journal"
    return [line for line in journal.read_text().splitlines() if "candidate" in line] if journal.exists() else []


def run(folder: Path, *servers: ServerProcess, rows: int = ROWS) -> subprocess.Popen[str]:
    (folder / "in.jsonl").write_bytes(chat_file(rows))
    urls = ",".join(server.base_url for server in servers)
    command = [sys.executable, "-m", "gristmill", "run", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl")]
    command += ["--engine", "openai_compatible", "--url", urls, "-O", "parallel=8"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(true, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def results(folder: Path, running: subprocess.Popen[str], rows: int = ROWS) -> None:
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 0, said
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [f"row-{index}" for index in range(rows)]
    assert {line["response"]["status_code"] for line in lines} == {200}


@pytest.fixture
def pool(tmp_path):
    with endpoint(tmp_path, "one") as one, endpoint(tmp_path, "two") as two:
        yield one, two


def test_both_endpoints_of_a_pool_work_and_no_row_is_asked_twice(tmp_path, pool):
    results(tmp_path, run(tmp_path, *pool))
    one, two = answered(tmp_path, "one"), answered(tmp_path, "two")
    assert len(one) + len(two) == len(set(one + two)) == ROWS
    assert min(len(one), len(two)) > ROWS // 4


def test_the_rows_of_an_endpoint_that_is_killed_are_answered_by_the_other(tmp_path, pool):
    running = run(tmp_path, *pool)
    wait_until(lambda: len(answered(tmp_path, "one")) >= 40)
    pool[0].kill()
    results(tmp_path, running)
    one, two = answered(tmp_path, "one"), answered(tmp_path, "two")
    # At most the eight rows in flight at the kill were computed twice, none was lost, none asked again needlessly.
    assert set(one) | set(two) == {f"user: Rate candidate row-{index}." for index in range(ROWS)}
    assert max(Counter(one).values()) == max(Counter(two).values()) == 1
    assert len(one) + len(two) <= ROWS + 8


def test_an_endpoint_that_comes_back_gets_rows_again(tmp_path, pool):
    one, two = pool
    port = one.base_url.rpartition(":")[2].removesuffix("/v1")
    running = run(tmp_path, one, two, rows=LONG)
    wait_until(lambda: len(answered(tmp_path, "one")) >= 20)
    one.kill()
    known = len(answered(tmp_path, "two"))
    wait_until(lambda: len(answered(tmp_path, "two")) > known + 16)
    # However long the start takes, the run is not over before it.
    os.kill(two.pid, signal.SIGSTOP)
    with endpoint(tmp_path, "again", "--port", port):
        os.kill(two.pid, signal.SIGCONT)
        results(tmp_path, running, LONG)
    assert len(answered(tmp_path, "again")) > 10


def test_when_all_are_gone_the_rows_wait_and_none_is_lost(tmp_path, pool):
    one, two = pool
    port = two.base_url.rpartition(":")[2].removesuffix("/v1")
    running = run(tmp_path, one, two)
    wait_until(lambda: len(answered(tmp_path, "two")) >= 20)
    one.kill()
    two.kill()
    time.sleep(1.0)
    assert running.poll() is None
    with endpoint(tmp_path, "again", "--port", port):
        results(tmp_path, running)


def test_an_endpoint_that_is_away_at_the_start_joins_later(tmp_path, pool):
    one, two = pool
    port = one.base_url.rpartition(":")[2].removesuffix("/v1")
    one.kill()
    running = run(tmp_path, one, two, rows=LONG)
    wait_until(lambda: len(answered(tmp_path, "two")) >= 20)
    with endpoint(tmp_path, "again", "--port", port):
        results(tmp_path, running, LONG)
    assert len(answered(tmp_path, "again")) > 10
