"""A ranking that is killed, stopped, or run on a server comes to the same certificate and output, to the byte."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import gristmill
from server_process import ServerProcess

pytest.importorskip("sklearn", reason="pip install 'gristmill[score]' to run this")

#: The small model is asked about all rows, too.
WISH = ("--top", "150", "--recall", "0.7", "--seed", "3", "--proxy", "small", "--rounds", "2", "-o", "best.csv")
ROWS, TOP, ROUNDS = 1_500, 150, 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = random.Random(5)
    lines = [f"{row:04},{draw.random():.8f}" for row in range(ROWS)]
    (tmp_path / "table.csv").write_text("\n".join(["id,worth", *lines]) + "\n")
    (tmp_path / "rubric.md").write_text("Score the miller.\n")
    return tmp_path


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    words = ["rank", "table.csv", "--rubric", "rubric.md", "--id", "id", "--scale", "0..10", *WISH]
    engine = [
        "--engine",
        "simulated",
        "-O",
        "scored_by=worth:",
        "-O",
        "compared_by=worth:",
        "-O",
        "journal=journal",
        "-O",
        "latency=0.02",
    ]
    command = [sys.executable, "-m", "gristmill", *words, *engine, *more]
    environment = os.environ | {"HOME": str(folder)}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def asked(folder: Path) -> int:
    try:
        return (folder / "journal").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def groups(folder: Path, of: str = "judge/*") -> int:
    """That the judge has been asked, or is."""
    return len(list((folder / ".best.csv.gristmill").glob(of)))


def came_of_it(folder: Path) -> tuple[bytes, dict]:
    """The output, and the certificate but for what it took."""
    certificate = json.loads((folder / "best.csv.certificate.json").read_text())
    certificate.pop("cost")
    return (folder / "best.csv").read_bytes(), certificate


def undisturbed(folder: Path) -> tuple[bytes, dict, int]:
    run = start(folder)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    found = came_of_it(folder)
    rows = asked(folder)
    for name in ("best.csv", "best.csv.certificate.json", "journal"):
        (folder / name).unlink()
    assert found[1]["basis"] == "audit" and rows == ROWS + found[1]["judged"] + ROUNDS * TOP
    assert found[1]["rounds"]["answered"] == ROUNDS * TOP / 2
    return *found, rows


def test_killed_at_any_moment_it_comes_to_the_same_certificate_and_output(folder):
    output, certificate, rows = undisturbed(folder)
    draw = random.Random(8)
    # In the small model's rows; in three groups of the judge's: the pilot, what the proxy puts first, the audit; and in
    # both rounds of comparisons.
    for of, group in [("judge/*", group) for group in range(4)] + [("rounds/*/*", group) for group in (1, 2)]:
        run = start(folder)
        while groups(folder, of) < group and run.poll() is None:
            time.sleep(0.002)
        before, more = asked(folder), draw.randrange(1, 60)
        while asked(folder) < before + more and groups(folder, of) <= group and run.poll() is None:
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert groups(folder, of) >= group
        assert run.returncode == -signal.SIGKILL and not (folder / "best.csv").exists()
    run = start(folder)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    assert came_of_it(folder) == (output, certificate)
    # What was in flight at a kill, or not yet stored.
    assert rows <= asked(folder) < rows + 6 * 400


def test_stopped_by_a_signal_it_says_how_to_go_on_and_goes_on(folder):
    output, certificate, rows = undisturbed(folder)
    for share, kind in ((0.3, signal.SIGINT), (0.75, signal.SIGTERM)):
        run = start(folder)
        while asked(folder) < share * rows and run.poll() is None:
            time.sleep(0.005)
        run.send_signal(kind)
        _, errors = run.communicate()
        assert run.returncode == 130 and "the same command goes on from there" in errors, errors
        assert not (folder / "best.csv").exists()
    run = start(folder, "--seed", "4")
    _, errors = run.communicate()
    assert run.returncode == 2 and "The seed changed since this was started" in errors
    run = start(folder)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    assert came_of_it(folder) == (output, certificate)
    assert rows <= asked(folder) < rows + 400


def test_on_a_server_it_is_the_same_and_each_step_one_batch(tmp_path: Path):
    draw = random.Random(5)
    worth = [draw.random() for _ in range(600)]
    frame = pl.DataFrame({"id": range(600), "worth": worth, "near": [each + draw.gauss(0, 0.05) for each in worth]})
    options = gristmill.ScoreOptions(id_column="id")
    wish = {"top": 60, "recall": 0.6, "proxy": "near", "options": options}
    asked = {"rubric": "Score.", "scale": range(11)}
    server = ServerProcess(tmp_path / "data", "--engine-option", "scored_by=worth:").start()
    try:
        there = gristmill.ScoreServer(server.base_url)
        best = gristmill.rank(frame, **asked, **wish, on=there, resume=tmp_path / "state")
        client = gristmill.Client(server.base_url)
        batches = len(client.page(100).data)
        again = gristmill.rank(frame, **asked, **wish, on=there, resume=tmp_path / "state")
        assert again.frame.equals(best.frame) and len(client.page(100).data) == batches
    finally:
        server.stop()
    here = gristmill.EngineSettings("simulated", options={"scored_by": "worth:"})
    local = gristmill.rank(frame, **asked, **wish, on=here)
    assert best.certified and best.frame.equals(local.frame)
    assert best.certificate["judged_by_step"] == local.certificate["judged_by_step"]
