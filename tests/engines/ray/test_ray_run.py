"""``gristmill run`` with a cluster of its own: nothing is left running, and it goes on where it was killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed: pip install 'gristmill[ray]'")

ROWS = 300


def write_rows(path: Path) -> None:
    with path.open("w") as file:
        for number in range(ROWS):
            messages = [{"role": "user", "content": f"row {number}."}]
            body = {"model": "simulated", "messages": messages, "max_tokens": 2}
            line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


def command(folder: Path) -> list[str]:
    options = ["--replicas", "2", "--replica-engine", "simulated", "-O", "slots=4", "-O", "latency=0.1"]
    options += ["-O", f"journal={folder / 'journal'}"]
    given = [str(folder / "rows.jsonl"), "-o", str(folder / "answers.jsonl"), "--engine", "ray", *options]
    return [sys.executable, "-m", "gristmill", "run", *given]


def test_a_killed_run_leaves_nothing_running_and_goes_on_where_it_was(tmp_path):
    write_rows(tmp_path / "rows.jsonl")
    journal = tmp_path / "journal"
    first = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not journal.exists() or len(journal.read_bytes().splitlines()) < 60:
        assert first.poll() is None, first.stderr and first.stderr.read()
        time.sleep(0.05)
    started = psutil.Process(first.pid).children(recursive=True)
    assert started
    first.kill()
    first.wait()
    psutil.wait_procs(started, timeout=120)
    assert [process for process in started if process.is_running()] == []

    again = subprocess.run(command(tmp_path), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    answered = Counter(json.loads(line)["custom_id"] for line in (tmp_path / "answers.jsonl").read_text().splitlines())
    assert len(answered) == ROWS and set(answered.values()) == {1}
    # Stored answers are not asked for again: only what was in flight, or not stored yet, when it was killed.
    asked = Counter(journal.read_text().splitlines())
    assert len(asked) == ROWS and sum(asked.values()) < ROWS + 60
