"""``gristmill run`` between pipes: ``-`` for its input, its output, or both; and what it prints as JSON."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from forked_command import Done, run_forked

from requests_jsonl import chat_file, chat_line, jsonl

ENGINE = ("--engine", "simulated")
FAILING = (*ENGINE, "-O", "fail_on=hopeless", "-O", "failure_kind=invalid_request")
GOOD_AND_BAD = jsonl([chat_line("bad", "a hopeless case"), chat_line("good")])


def run(folder: Path, *words: str, stdin: bytes = b"") -> Done:
    return run_forked(folder, ["run", *words], {"HOME": str(folder / "home")}, stdin)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "home")


def ids(text: str) -> list[str]:
    return [json.loads(line)["custom_id"] for line in text.splitlines()]


def test_from_standard_input_to_standard_output_each_row_has_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "-", "-o", "-", *FAILING, stdin=GOOD_AND_BAD)
    assert done.returncode == 1
    assert ids(done.stdout) == ["good", "bad"]
    assert "1 of 2 rows answered, 1 failed" in done.stderr and "Answers:" not in done.stderr
    assert names(tmp_path) == [] and not list((tmp_path / "home").rglob("*.jsonl"))


def test_a_piped_input_leaves_nothing_beside_the_output(tmp_path: Path) -> None:
    done = run(tmp_path, "-", "-o", "out.jsonl", *ENGINE, stdin=chat_file(3))
    assert done.returncode == 0 and done.stdout == ""
    assert ids((tmp_path / "out.jsonl").read_text()) == ["row-0", "row-1", "row-2"]
    assert names(tmp_path) == ["out.jsonl"]


def test_a_piped_input_that_is_no_good_is_told_as_such(tmp_path: Path) -> None:
    done = run(tmp_path, "-", "-o", "out.jsonl", *ENGINE, stdin=b"notes\n")
    assert done.returncode == 2 and done.stderr.startswith("Error: Standard input was rejected, nothing ran:\n  line 1")
    assert "empty" in run(tmp_path, "-", "-o", "out.jsonl", *ENGINE).stderr
    assert names(tmp_path) == []


def begun(folder: Path, *words: str, rows: int = 40) -> subprocess.Popen[bytes]:
    """A slow run over piped rows that has answered one."""
    journal = folder / "journal"
    slow = ("-O", "latency=0.1", "-O", "slots=1", "-O", "journal=journal")
    command = [sys.executable, "-m", "gristmill", "run", "-", *words, *ENGINE, *slow]
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin
    process.stdin.write(chat_file(rows))
    process.stdin.close()
    process.stdin = None  # or ``communicate`` would flush it
    while not (journal.exists() and journal.stat().st_size):
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_a_killed_run_goes_on_with_the_input_that_was_kept(tmp_path: Path) -> None:
    process = begun(tmp_path, "-o", "out.jsonl")
    process.kill()
    process.wait()
    answered = len((tmp_path / "journal").read_text().splitlines())
    changed = run(tmp_path, "-", "-o", "out.jsonl", *ENGINE, stdin=chat_file(41))
    assert changed.returncode == 2 and "The input changed" in changed.stderr
    done = run(tmp_path, "-", "-o", "out.jsonl", *ENGINE, "-O", "journal=again")
    assert done.returncode == 0, done.stderr
    assert ids((tmp_path / "out.jsonl").read_text()) == [f"row-{row}" for row in range(40)]
    assert len((tmp_path / "again").read_text().splitlines()) <= 41 - answered
    assert names(tmp_path) == ["again", "journal", "out.jsonl"]


def test_a_killed_run_goes_on_when_the_same_rows_come_again(tmp_path: Path) -> None:
    process = begun(tmp_path, "-o", "out.jsonl")
    process.kill()
    process.wait()
    done = run(tmp_path, "-", "-o", "out.jsonl", *ENGINE, stdin=chat_file(40))
    assert done.returncode == 0, done.stderr
    assert len(ids((tmp_path / "out.jsonl").read_text())) == 40


def test_a_stopped_run_to_standard_output_says_that_it_cannot_be_resumed(tmp_path: Path) -> None:
    process = begun(tmp_path, "-o", "-")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert b"name a file with -o to be able to resume" in err and b"Traceback" not in err


def test_what_came_of_a_run_as_json(tmp_path: Path) -> None:
    done = run(tmp_path, "-", "-o", "out.jsonl", "--json", *FAILING, stdin=GOOD_AND_BAD)
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report["usage"]["output_tokens"] > 0
    assert report["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert (report["status"], report["output"], report["errors"]) == ("completed", "out.jsonl", "out.errors.jsonl")


def test_json_and_answers_on_one_output_are_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "-", "-o", "-", "--json", *ENGINE, stdin=GOOD_AND_BAD)
    assert done.returncode == 2 and "leave out --json" in done.stderr
