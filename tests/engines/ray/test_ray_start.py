"""A cluster as people start it, by ``ray start``: where there is a token, it asks for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed: pip install 'gristmill[ray]'")

RAY = Path(sys.executable).with_name("ray")


class Head(NamedTuple):
    address: str
    home: Path


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    subprocess.run(
        [RAY, "get-auth-token", "--generate"], env=environment(home), check=True, capture_output=True, timeout=60
    )
    port = free_port()
    process = subprocess.Popen(
        [
            RAY, "start", "--head", f"--port={port}", "--num-cpus=2",
            "--include-dashboard=false", f"--dashboard-agent-listen-port={free_port()}",
            "--object-store-memory=80000000", "--block",
        ],
        env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield Head(f"127.0.0.1:{port}", home)
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for each in alive:
            each.kill()
        process.wait()


def run(head: Head, home: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    lines = [
        {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "simulated", "messages": [{"role": "user", "content": f"Row {n}"}], "max_tokens": 4}}
        for n in range(20)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [
        sys.executable, "-m", "gristmill", "run", "rows.jsonl", "-o", "answers.jsonl", "--engine", "ray", "--replicas",
        "2", "--replica-engine", "simulated", "--ray-address", head.address,
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=folder, env=environment(home), capture_output=True, text=True, timeout=120, check=False
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
