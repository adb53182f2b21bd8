"""Stopping, two servers on one folder, a closed log, a full disk, and a run that is killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import openai
from watched_batch import Journal, peek, read_stored, wait_until

from requests_jsonl import CHAT, chat_file, chat_line, jsonl
from server_process import ServerProcess


def submit(client: openai.OpenAI, data: bytes) -> str:
    file = client.files.create(file=("rows.jsonl", data), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id


def answered(client: openai.OpenAI, batch_id: str) -> list[str]:
    wait_until(lambda: client.batches.retrieve(batch_id).status == "completed", "the batch to complete", pause=0.05)
    file_id = client.batches.retrieve(batch_id).output_file_id
    assert file_id is not None
    return [json.loads(line)["custom_id"] for line in client.files.content(file_id).content.splitlines()]


def test_sigterm_stores_every_row_in_flight_and_exits_with_0(data: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with ServerProcess(data, "-O", f"journal={journal.path}", "-O", "latency=0.3", "-O", "slots=8") as server:
        batch_id = submit(server.client(), chat_file(200))
        wait_until(lambda: len(journal.rows()) >= 20, "some rows")
        assert server.stop() == 0
        stored = read_stored(data, tmp_path / "scratch")
        assert stored.status == "in_progress"
        assert Counter(json.loads(each)["custom_id"] for each in stored.results.values()) == Counter(
            row.removesuffix(".") for row in journal.rows()
        )
        assert peek(data).owner == ""
        server.start()
        assert answered(server.client(), batch_id) == [f"row-{row}" for row in range(200)]
        assert max(Counter(journal.rows()).values()) == 1


def test_sigterm_hands_back_rows_that_take_longer_than_the_grace(data: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    slow = ("-O", f"journal={journal.path}", "-O", "latency=3600")
    with ServerProcess(data, *slow, "--stop-grace", "0.2") as server:
        batch_id = submit(server.client(), chat_file(10))
        wait_until(lambda: peek(data).status == "in_progress", "the batch to run")
        assert server.stop() == 0
    with ServerProcess(data, "-O", f"journal={journal.path}") as server:
        assert len(answered(server.client(), batch_id)) == 10
    assert len(journal.rows()) == 10


def test_a_second_server_on_the_same_folder_is_refused_in_a_sentence(data: Path) -> None:
    with ServerProcess(data) as server:
        command = [sys.executable, "-m", "gristmill", "serve", "--engine", "simulated", "--port", "0"]
        second = subprocess.run([*command, "--data", str(data)], capture_output=True, text=True, timeout=60)
        assert second.returncode == 75
        assert second.stderr == (
            f"Error: The data folder {data} is in use by another Gristmill (process {server.pid}): "
            "stop that one, or choose another folder with --data.\n"
        )
        assert server.client().models.list().data[0].id == "simulated"


def test_a_folder_whose_server_was_killed_is_free_at_once(data: Path) -> None:
    with ServerProcess(data) as server:
        server.kill()
        server.start()
        assert server.client().models.list().data


class UnheardServer(ServerProcess):
    """Nobody reads its standard error once it is ready: the pipe is closed at the other end."""

    def wait_until_ready(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        self.base_url = next(line for line in self._process.stderr if line.startswith("Gristmill is ready")).split()[-1]
        self._process.stderr.close()


def test_a_closed_log_does_not_stop_the_server(data: Path) -> None:
    with UnheardServer(data) as server:
        client = server.client()
        for _ in range(3):
            # Each batch logs several lines into the closed pipe.
            assert len(answered(client, submit(client, chat_file(20)))) == 20
        assert server.alive()
        assert server.stop() == 0


def test_a_server_without_standard_error_serves(data: Path) -> None:
    command = f"exec {sys.executable} -m gristmill serve --engine simulated --port 0 --data {data} 2>&-"
    process = subprocess.Popen(["sh", "-c", command])
    try:
        wait_until(lambda: (data / "gristmill.db").exists() or process.poll() is not None, "the server")
        time.sleep(1)
        assert process.poll() is None
    finally:
        process.terminate()
    assert process.wait(timeout=30) == 0


def run_command(folder: Path, *options: str) -> list[str]:
    command = [sys.executable, "-m", "gristmill", "run", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl")]
    return [*command, "--engine", "simulated", *options]


def test_a_run_that_is_killed_several_times_and_repeated_gives_the_complete_output_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    rows = 1_500
    lines = [chat_line(f"row-{row}", f"{'hopeless' if row % 100 == 7 else 'fine'} row-{row}") for row in range(rows)]
    (tmp_path / "in.jsonl").write_bytes(jsonl(lines))
    options = ["-O", f"journal={journal.path}", "-O", "latency=0.02", "-O", "slots=8"]
    options += ["-O", "fail_on=hopeless", "-O", "failure_kind=invalid_request"]
    state = tmp_path / ".out.jsonl.gristmill"
    chance = random.Random(7)
    seen: list[tuple[int, set[str]]] = []
    for _ in range(5):
        process = subprocess.Popen(run_command(tmp_path, *options), stderr=subprocess.DEVNULL)
        before = journal.size()
        wait_until(lambda: journal.size() > before or process.poll() is not None, "the run to get on")  # noqa: B023
        time.sleep(chance.uniform(0, 0.3))
        assert process.poll() is None
        process.kill()
        process.wait()
        stored = read_stored(state, tmp_path / "scratch")
        seen.append((journal.size(), {json.loads(each)["custom_id"] for each in stored.results.values()}))
        assert not (tmp_path / "out.jsonl").exists()
    last = subprocess.run(run_command(tmp_path, *options), capture_output=True, text=True, timeout=120)
    assert last.returncode == 1, last.stderr  # Some rows failed.
    output = [json.loads(line)["custom_id"] for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    errors = [json.loads(line)["custom_id"] for line in (tmp_path / "out.errors.jsonl").read_bytes().splitlines()]
    assert output == [f"row-{row}" for row in range(rows) if row % 100 != 7]
    assert errors == [f"row-{row}" for row in range(rows) if row % 100 == 7]
    for size, stored_ids in seen:
        assert not stored_ids.intersection(journal.rows(size))
    assert not state.exists()


def test_a_run_that_is_interrupted_keeps_what_is_done_and_goes_on_from_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    (tmp_path / "in.jsonl").write_bytes(chat_file(300))
    options = ["-O", f"journal={journal.path}", "-O", "latency=0.05", "-O", "slots=8"]
    process = subprocess.Popen(run_command(tmp_path, *options), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(journal.rows()) > 30, "some rows")
    process.terminate()
    _, message = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on from there" in message
    assert subprocess.run(run_command(tmp_path, *options), capture_output=True).returncode == 0
    assert Counter(journal.rows()) == Counter(f"row-{row}." for row in range(300))
