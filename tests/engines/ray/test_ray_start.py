"""A cluster as people start it, by ``ray start``: where there is a token, it asks for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed: pip install 'gristmill[ray]'")

RAY = Path(sys.executable).with_name("ray")


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Head:
    """One after the other at the same address, with the tokens of ``home``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                RAY, "start", "--head", f"--port={self._port}", "--num-cpus=2", "--include-dashboard=false",
                f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=80000000", "--block",
            ],
            env=environment(self.home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                return
        raise AssertionError("".join(said))

    def kill(self) -> None:
        """With all of its node."""
        family = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family, timeout=20)
        self._process.wait()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    subprocess.run(
        [RAY, "get-auth-token", "--generate"], env=environment(home), check=True, capture_output=True, timeout=60
    )
    head = Head(home)
    head.start()
    try:
        yield head
    finally:
        head.kill()


def command(head: Head, folder: Path, rows: int, *options: str) -> list[str]:
    """That runs so many rows in ``folder``, on two replicas."""
    lines = [
        {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "simulated", "messages": [{"role": "user", "content": f"Row {n}"}], "max_tokens": 4}}
        for n in range(rows)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [
        sys.executable, "-m", "gristmill", "run", "rows.jsonl", "-o", "answers.jsonl", "--engine", "ray", "--replicas",
        "2", "--replica-engine", "simulated", "--ray-address", head.address, *options,
    ]  # fmt: skip


def run(head: Head, home: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(head, folder, 20), cwd=folder, env=environment(home), capture_output=True, text=True, timeout=120
    )


def test_rows_are_answered_on_a_cluster_that_asks_for_the_token_of_this_user(head: Head, tmp_path: Path) -> None:
    done = run(head, head.home, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 20


def test_who_has_no_token_is_told_to_get_it(head: Head, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    done = run(head, tmp_path / "home", tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "asks for a token" in done.stderr, done.stderr


def test_a_head_that_is_killed_and_started_anew_loses_no_row_and_answers_none_twice(head: Head, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    options = ("-O", "latency=0.2", "-O", "slots=4", "-O", f"journal={journal}")
    running = subprocess.Popen(
        command(head, tmp_path, 200, *options), cwd=tmp_path, env=environment(head.home), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while not (journal.exists() and len(journal.read_text().splitlines()) > 40):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        head.kill()
        assert running.poll() is None
        head.start()
        _, said = running.communicate(timeout=180)
    finally:
        running.kill()
    assert running.returncode == 0, said
    answers = [json.loads(line)["custom_id"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert sorted(answers) == sorted(f"row-{n}" for n in range(200))
