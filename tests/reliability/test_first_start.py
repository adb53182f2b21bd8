"""The first start on a folder: by two servers at once, and killed at any moment."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from watched_batch import wait_until

from server_process import ServerProcess

STARTS = 20


def start(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gristmill", "serve", "--engine", "simulated", "--port", "0", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def one_runs_and_one_is_refused(first: list[str], second: list[str], refusal: str) -> None:
    servers = [start(*first), start(*second)]
    try:
        wait_until(lambda: any(server.poll() is not None for server in servers), "one of the two to give up")
        loser = next(server for server in servers if server.poll() is not None)
        winner = next(server for server in servers if server is not loser)
        assert loser.stderr is not None and winner.stderr is not None
        said = loser.stderr.read()
        assert loser.returncode == 75, said
        assert said.startswith("Error: ") and said.count("\n") == 1
        assert f"{refusal} is in use by another Gristmill (process {winner.pid})" in said
        assert winner.stderr.readline().startswith("Gristmill is ready")
    finally:
        for server in servers:
            server.kill()
            server.wait()
            assert server.stderr is not None
            server.stderr.close()


@pytest.mark.parametrize("attempt", range(STARTS))
def test_of_two_servers_that_start_at_once_on_a_new_folder_one_runs_and_one_says_why_not(
    tmp_path: Path, attempt: int
) -> None:
    data = tmp_path / "data"
    one_runs_and_one_is_refused(["--data", str(data)], ["--data", str(data)], f"The data folder {data}")


def test_a_database_belongs_to_one_server_also_where_each_has_a_data_folder_of_its_own(tmp_path: Path) -> None:
    database = tmp_path / "shared.db"
    first, second = (["--data", str(tmp_path / name), "--database", f"sqlite:///{database}"] for name in "ab")
    one_runs_and_one_is_refused(first, second, f"The database {database}")


def test_a_first_start_that_is_killed_at_any_moment_leaves_a_folder_that_can_be_served(tmp_path: Path) -> None:
    chance = random.Random(4)
    for attempt in range(5):
        server = ServerProcess(tmp_path / str(attempt))
        server.spawn()
        database = server.data / "gristmill.db"
        wait_until(database.exists, "the database to be begun", pause=0.0005)
        time.sleep(chance.uniform(0, 0.03))
        server.kill()
        with server:
            assert server.client().models.list().data


@pytest.mark.parametrize("content", [b"no database at all " * 100, b"SQLite format 3\0" + b"\xff" * 5_000])
def test_a_file_that_is_no_database_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gristmill.db").write_bytes(content)
    server = start("--data", str(tmp_path))
    _, said = server.communicate(timeout=60)
    assert server.returncode == 2
    assert said.startswith(f"Error: The database {tmp_path / 'gristmill.db'} cannot be opened: ")
    assert said.count("\n") == 1
