"""What a server or a run stores is readable by its owner alone, whatever the umask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_stop_and_resume import answered, submit
from watched_batch import wait_until

from requests_jsonl import chat_file
from server_process import ServerProcess


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def readable(folder: Path) -> list[str]:
    """What others may read, of the folder and all in it."""
    paths = [folder, *folder.rglob("*")]
    return [f"{path.name} {path.stat().st_mode & 0o777:o}" for path in paths if path.stat().st_mode & 0o077]


def work(server: ServerProcess) -> None:
    client = server.client()
    assert len(answered(client, submit(client, chat_file(20)))) == 20
    upload = client.uploads.create(bytes=9, filename="a", mime_type="a/b", purpose="user_data")
    client.uploads.parts.create(upload.id, data=b"x" * 9)


def test_everything_a_server_stores_is_private(data: Path, open_umask: None) -> None:
    with ServerProcess(data) as server:
        work(server)
        assert readable(data) == []
        assert {"gristmill.db", "gristmill.db-wal", "gristmill.db-shm", "lock"} <= {
            path.name for path in data.iterdir()
        }


def test_a_data_folder_that_others_could_read_is_private_once_it_is_served_again(data: Path) -> None:
    with ServerProcess(data) as server:
        work(server)
        server.stop()
    for path in (data, *data.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with ServerProcess(data) as server:
        work(server)
        assert readable(data) == []


def test_a_folder_that_holds_more_than_ours_stays_as_it_is(data: Path) -> None:
    data.mkdir(mode=0o755)
    (data / "thesis.txt").write_text("mine")
    modes = [path.stat().st_mode for path in (data, data / "thesis.txt")]
    with ServerProcess(data) as server:
        work(server)
        assert [path.stat().st_mode for path in (data, data / "thesis.txt")] == modes
        assert [each for each in readable(data) if not each.startswith(("data ", "thesis.txt "))] == []


def test_a_run_keeps_its_state_private_and_leaves_the_input_as_it_is(tmp_path: Path, open_umask: None) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(chat_file(50))
    source.chmod(0o644)
    command = [sys.executable, "-m", "gristmill", "run", str(source), "-o", str(output), "--engine", "simulated"]
    process = subprocess.Popen([*command, "-O", "latency=3600"], stderr=subprocess.DEVNULL)
    state = tmp_path / ".out.jsonl.gristmill"
    wait_until(lambda: (state / "blobs" / "files" / "file-input").exists(), "the run to begin")
    process.kill()
    process.wait()
    assert [each for each in readable(state) if not each.startswith("file-input ")] == []
    assert state.stat().st_mode & 0o777 == 0o700
    assert source.stat().st_mode & 0o777 == 0o644
