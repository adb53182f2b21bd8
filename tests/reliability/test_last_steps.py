"""``run`` and ``score`` killed between any two of their last steps, and two of them at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.batches.job_folder import Ending, JobFolder
from requests_jsonl import chat_line, jsonl

#: Runs the command, and kills it when the function returns for the given time; with -1, when it is first called.
KILLED = """
import importlib, os, signal, sys
module, name, when, *words = sys.argv[1:]
owner = importlib.import_module(module)
*classes, function = name.split(".")
for each in classes:
    owner = getattr(owner, each)
original, left = getattr(owner, function), [abs(int(when))]
def killing(*arguments, **options):
    left[0] -= 1
    if left[0] == 0 and int(when) < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments, **options)
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, function, killing)
sys.argv = ["gristmill", *words]
from gristmill.cli.main import main
main()
"""
FAILING = ("--engine", "simulated", "-O", "fail_on=hopeless", "-O", "failure_kind=invalid_request")
RUN = ("run", "in.jsonl", "-o", "out.jsonl", *FAILING, "-O", "journal=journal")
SCORE = ("score", "table.csv", "--rubric", "rubric.md", "--id", "id", "--scale", "0..10", "-o", "out.csv", *FAILING,
         "-O", "journal=journal")  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [chat_line(f"row-{row}", f"{'hopeless' if row == 3 else 'fine'} {row}") for row in range(10)]
    (tmp_path / "in.jsonl").write_bytes(jsonl(rows))
    (tmp_path / "table.csv").write_text("id,name\n1,Miller\n2,hopeless\n3,Baker\n")
    (tmp_path / "rubric.md").write_text("Score the miller.\n")
    return tmp_path


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HOME": str(folder)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def again(folder: Path, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return command(folder, sys.executable, "-m", "gristmill", *words)


STEPS = [
    ("gristmill.batches.local_run", "write_whole", 2),
    ("gristmill.batches.local_run", "LocalRun.deliver", -1),
    ("gristmill.batches.local_run", "LocalRun.deliver", 1),
    ("gristmill.batches.local_run", "LocalRun.deliver", 2),
    ("gristmill.batches.job_folder", "JobFolder.end", 1),
    ("gristmill.batches.job_folder", "JobFolder._remove_ended", -1),
]


@pytest.mark.parametrize(("module", "name", "when"), STEPS, ids=lambda value: str(value).rpartition(".")[2])
def test_a_run_killed_between_its_last_steps_ends_as_it_would_have(
    folder: Path, module: str, name: str, when: int
) -> None:
    killed = command(folder, sys.executable, "-c", KILLED, module, name, str(when), *RUN)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    asked = (folder / "journal").read_bytes()
    done = again(folder, RUN)
    assert done.returncode == 1, done.stderr
    assert "9 of 10 rows answered, 1 failed" in done.stderr and "Answers: out.jsonl" in done.stderr
    assert len((folder / "out.jsonl").read_bytes().splitlines()) == 9
    (error,) = (folder / "out.errors.jsonl").read_bytes().splitlines()
    assert json.loads(error)["custom_id"] == "row-3"
    assert (folder / "journal").read_bytes() == asked
    assert not [path.name for path in folder.iterdir() if "gristmill" in path.name]
    assert "exists already" in again(folder, RUN).stderr


SCORE_STEPS = [
    ("gristmill.scoring.table", "write_table", -1),
    ("gristmill.scoring.table", "write_table", 1),
    ("gristmill.scoring.receipt", "write_receipt", 1),
    ("gristmill.batches.job_folder", "JobFolder.end", 1),
    ("gristmill.batches.job_folder", "JobFolder._remove_ended", -1),
]


@pytest.mark.parametrize(("module", "name", "when"), SCORE_STEPS, ids=lambda value: str(value).rpartition(".")[2])
def test_scores_killed_between_their_last_steps_end_as_they_would_have(
    folder: Path, module: str, name: str, when: int
) -> None:
    killed = command(folder, sys.executable, "-c", KILLED, module, name, str(when), *SCORE)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    asked = (folder / "journal").read_bytes()
    done = again(folder, SCORE)
    assert done.returncode == 1, done.stderr
    assert "2 of 3 scores: out.csv" in done.stderr and "2: no score: A simulated failure" in done.stderr
    assert len((folder / "out.csv").read_bytes().splitlines()) == 4
    (computed,) = json.loads((folder / "out.csv.receipt.json").read_bytes())["computed"]
    assert computed["engine"] == "simulated"
    assert (folder / "journal").read_bytes() == asked
    assert not [path.name for path in folder.iterdir() if "gristmill" in path.name]
    assert "exists already" in again(folder, SCORE).stderr


def test_how_an_ended_scoring_is_told_of_is_no_part_of_what_it_was(folder: Path) -> None:
    ended = ("gristmill.batches.job_folder", "JobFolder.end", "1")
    command(folder, sys.executable, "-c", KILLED, *ended, *SCORE)
    asked = (folder / "journal").read_bytes()
    done = again(folder, (*SCORE, "--json", "--log-level", "error", "--concurrency", "2", "--wait", "5m"))
    assert done.returncode == 1 and "finished before" in done.stderr, done.stderr
    assert json.loads(done.stdout)["output"] == "out.csv"
    assert (folder / "journal").read_bytes() == asked


def test_what_an_ended_run_left_is_not_taken_for_another(folder: Path) -> None:
    ended = ("gristmill.batches.job_folder", "JobFolder.end", "1")
    command(folder, sys.executable, "-c", KILLED, *ended, *RUN)
    (folder / "in.jsonl").write_bytes(jsonl([chat_line("other")]))
    done = again(folder, RUN)
    assert done.returncode == 2 and "out.jsonl exists already" in done.stderr
    assert again(folder, (*RUN, "--overwrite")).returncode == 0
    assert json.loads((folder / "out.jsonl").read_bytes())["custom_id"] == "other"


def test_an_output_that_was_taken_away_is_made_again(folder: Path) -> None:
    ended = ("gristmill.batches.job_folder", "JobFolder.end", "1")
    command(folder, sys.executable, "-c", KILLED, *ended, *RUN)
    (folder / "out.jsonl").unlink()
    assert again(folder, RUN).returncode == 1
    assert len((folder / "out.jsonl").read_bytes().splitlines()) == 9


@pytest.mark.parametrize("words", [RUN, SCORE], ids=["run", "score"])
def test_of_two_at_once_one_works_and_the_other_says_so(folder: Path, words: tuple[str, ...]) -> None:
    slow = [sys.executable, "-m", "gristmill", *words, "-O", "latency=1"]
    environment = os.environ | {"HOME": str(folder)}
    both = [subprocess.Popen(slow, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.pid: process.communicate(timeout=120)[1] for process in both}
    codes = sorted(process.returncode for process in both)
    assert codes == [1, 2], said
    worker, refused = sorted(both, key=lambda process: process.returncode or 0)
    assert f"is being written by another Gristmill (process {worker.pid})" in said[refused.pid]
    assert len(said[refused.pid].splitlines()) == 1 and "Traceback" not in said[worker.pid]


MANY = """
import sys
from pathlib import Path
from gristmill.batches.job_folder import Ending, JobFolder
from gristmill.user_error import UserError
output, refused = Path("out.jsonl"), 0
for number in range(300):
    folder = JobFolder(output)
    identity = {"number": number // 3}
    try:
        with folder.held():
            assert not Path("inside").exists(), "two at once"
            Path("inside").touch()
            try:
                if folder.ending(identity) is None and number % 5:
                    folder.begin(identity)
                    output.touch()
                    folder.end(Ending(identity, [], 0))
            finally:
                Path("inside").unlink()
    except UserError:
        refused += 1
print(refused)
"""


def test_many_that_begin_and_end_at_the_same_moment_never_work_side_by_side(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MANY]
    several = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [process.communicate(timeout=120) for process in several]
    assert [errors for _, errors in said] == [""] * 4
    assert sum(int(refused) for refused, _ in said) < 4 * 300
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_the_folder_of_one_that_begins_is_not_removed_by_one_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, begins = JobFolder(tmp_path / "out"), JobFolder(tmp_path / "out")
    remove_ended = JobFolder._remove_ended

    def and_another_begins(folder: JobFolder) -> None:
        remove_ended(folder)
        begins._acquire()

    monkeypatch.setattr(JobFolder, "_remove_ended", and_another_begins)
    with ends.held():
        ends.begin({})
        (tmp_path / "out").touch()
        ends.end(Ending({}, [], 0))
    assert (begins.path / "held").exists()
