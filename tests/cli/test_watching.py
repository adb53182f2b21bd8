"""What is on the screen while somebody waits: for a server, for an engine, for slow rows."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_command import run_forked

import flaky_proxy as broken
from flaky_proxy import FlakyProxy
from gristmill.scratch import scratch_folder
from requests_jsonl import chat_file
from server_process import ServerProcess


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """It answers a row every two seconds."""
    with ServerProcess(tmp_path_factory.mktemp("data"), "-O", "latency=2", "-O", "slots=1") as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.jsonl").write_bytes(chat_file(4))
    return tmp_path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "gristmill", *words]


def submit(server: ServerProcess, folder: Path) -> str:
    return run_forked(folder, ["batches", "submit", "in.jsonl", "--server", server.base_url], {}).stdout.strip()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without saying '{text}'")


def test_a_server_that_does_not_answer_is_shown_with_the_time_since(slow: ServerProcess, folder: Path) -> None:
    batch_id = submit(slow, folder)
    with FlakyProxy(slow.base_url) as proxy:
        proxy.faults.extend([broken.forward, broken.bad_gateway, broken.reset])
        words = command("batches", "watch", batch_id, "--server", proxy.base_url)
        process = subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True)
        assert "it answered 502 Bad Gateway" in read_until(process, "no answer since 20")
        read_until(process, "The server answers again.")
        read_until(process, "4 of 4 rows answered")
        assert process.wait(60) == 0


def test_ctrl_c_ends_the_watching_and_not_the_batch(slow: ServerProcess, folder: Path) -> None:
    batch_id = submit(slow, folder)
    words = command("batches", "watch", batch_id, "--server", slow.base_url)
    process = subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True)
    read_until(process, "/4 ")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"gristmill batches watch {batch_id}" in rest and "Traceback" not in rest
    assert run_forked(folder, ["batches", "cancel", batch_id, "--server", slow.base_url], {}).returncode == 0


def test_slow_rows_show_signs_of_life(folder: Path) -> None:
    words = command("run", "in.jsonl", "-o", "out.jsonl", "--engine", "simulated", "-O", "latency=5", "-O", "slots=1")
    environment = os.environ | {"HOME": str(folder)}
    process = subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    line = read_until(process, "in_progress")
    process.kill()
    process.wait()
    assert "0/4" in line and "1 in flight" in line and " seconds, " in line and "no answer yet" in line


SLOW_START = """
import asyncio, sys
from gristmill.engines.simulated import SimulatedEngine
async def start(self):
    await asyncio.sleep(3600)
SimulatedEngine.start = start
sys.argv = ["gristmill", *sys.argv[1:]]
from gristmill.cli.main import main
main()
"""


@pytest.mark.parametrize("job", ["run", "score", "bench"])
def test_an_engine_that_never_starts_is_waited_for_in_words_and_given_up(folder: Path, job: str) -> None:
    (folder / "table.csv").write_text("id,name\n1,Miller\n")
    (folder / "rubric.md").write_text("Score the miller.\n")
    words = {
        "run": ["run", "in.jsonl", "-o", "out.jsonl"],
        "bench": ["bench", "in.jsonl", "-o", "bench"],
        "score": ["score", "table.csv", "--rubric", "rubric.md", "--id", "id", "--scale", "0..10", "-o", "out.csv"],
    }[job]
    process = subprocess.run(
        [sys.executable, "-c", SLOW_START, *words, "--engine", "simulated", "--wait", "4s"],
        cwd=folder, env=os.environ | {"HOME": str(folder)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert process.returncode == 2
    waiting, given_up = process.stderr.splitlines()
    assert waiting.startswith("waiting for the simulated engine to start (")
    assert given_up.startswith("Error: The engine was not ready after 4 seconds") and "--wait" in given_up


def test_a_wait_that_is_no_duration_is_a_sentence(folder: Path) -> None:
    words = ["run", "in.jsonl", "-o", "out.jsonl", "--engine", "simulated", "--wait", "soon"]
    done = run_forked(folder, words, {})
    assert done.returncode == 2 and "--wait takes a duration such as 90s, 10m or 2h, not 'soon'." in done.stderr


@pytest.mark.parametrize(
    "words",
    [("batches", "list", "--json"), ("batches", "list"), ("plan", "in.jsonl"), ("plan", "in.jsonl", "--json"),
     ("models", "list"), ("--help",), ("--version",), ("doctor",)],
    ids=" ".join,
)  # fmt: skip
def test_output_that_nobody_reads_is_no_traceback(slow: ServerProcess, folder: Path, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"HOME": str(folder), "GRISTMILL_SERVER": slow.base_url, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        command(*words), cwd=folder, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writing)
    assert done.stderr == "" and done.returncode in (0, 1)


def test_messages_that_nobody_reads_do_not_end_a_run(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = command("run", "in.jsonl", "-o", "out.jsonl", "--engine", "simulated", "-O", "latency=1", "-O", "slots=1")
    done = subprocess.run(words, cwd=folder, env=os.environ | {"HOME": str(folder)}, stderr=writing, timeout=120)
    os.close(writing)
    assert done.returncode == 0 and len((folder / "out.jsonl").read_bytes().splitlines()) == 4


@pytest.mark.parametrize("columns", [None, "0"])
def test_a_terminal_without_a_width_is_written_to(slow: ServerProcess, folder: Path, columns: str | None) -> None:
    batch_id = submit(slow, folder)
    main, terminal = pty.openpty()  # Its width is 0.
    environment = os.environ | {"HOME": str(folder), "TERM": "xterm"} | ({"COLUMNS": columns} if columns else {})
    shown: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(main, 65536):
                shown.append(chunk)
        except OSError:
            pass  # The other end is closed.

    for words in (
        ("batches", "show", batch_id, "--server", slow.base_url),
        ("plan", "in.jsonl"),
        ("run", "in.jsonl", "-o", "out.jsonl", "--engine", "simulated"),
    ):
        process = subprocess.Popen(
            command(*words), cwd=folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
        )
        if not shown:
            threading.Thread(target=read, daemon=True).start()
        assert process.wait(120) == 0
    os.close(terminal)
    time.sleep(0.1)
    text = b"".join(shown).decode()
    assert batch_id[:12] in text and "prompt tokens" in text and "4 of 4 rows answered" in text
    assert "Traceback" not in text


def test_a_pilot_says_what_it_waits_for_and_gives_up(folder: Path) -> None:
    words = ["plan", "in.jsonl", "--pilot", "2", "--engine", "simulated", "--wait", "4s"]
    done = subprocess.run(
        [sys.executable, "-c", SLOW_START, *words],
        cwd=folder, env=os.environ | {"HOME": str(folder)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    waiting, given_up = done.stderr.splitlines()
    assert waiting.startswith("waiting for the simulated engine to start (")
    assert given_up.startswith("Error: The engine was not ready after 4 seconds")


def test_what_a_killed_plan_left_behind_goes_with_the_next_one(folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(chat_file(100_000))
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = os.environ | {"HOME": str(folder), "TMPDIR": str(temporary)}
    planning = folder / ".local" / "share" / "gristmill" / "planning"
    process = subprocess.Popen(command("plan", "in.jsonl"), cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    while not (planning.exists() and any(each.name for each in planning.glob("*/held"))):
        assert process.poll() is None
    process.kill()
    process.wait()
    assert len(list(planning.iterdir())) == 1
    (folder / "in.jsonl").write_bytes(chat_file(3))
    assert subprocess.run(command("plan", "in.jsonl"), cwd=folder, env=environment, timeout=120).returncode == 0
    assert list(planning.iterdir()) == [] and list(temporary.iterdir()) == []


def test_scratch_folders_of_processes_at_work_stay(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert first.exists() and second.exists() and first != second
    assert list(tmp_path.iterdir()) == []
