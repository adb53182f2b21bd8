"""What a command would write, looked at before it does anything: nothing is written over that was not meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forked_command import Done, run_forked

from gristmill.client import Client
from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

ENGINE = ("--engine", "simulated")
SCORE = ("score", "table.csv", "--rubric", "rubric.md", "--id", "id", "--scale", "0..10", *ENGINE)
RUN = ("run", "in.jsonl", *ENGINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.jsonl").write_bytes(chat_file(3))
    (tmp_path / "table.csv").write_text("id,name\n1,Miller\n2,Baker\n")
    (tmp_path / "rubric.md").write_text("Score the miller.\n")
    (tmp_path / "row.txt").write_text("{{ name }}\n")
    (tmp_path / "defaults.json").write_text("{}\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked.jsonl").symlink_to("in.jsonl")
    os.link(tmp_path / "in.jsonl", tmp_path / "another.errors.jsonl")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def command(folder: Path, *words: str) -> Done:
    return run_forked(folder, list(words), {"HOME": str(folder / "home")})


def contents(folder: Path) -> dict[str, bytes | None]:
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*RUN, "-o", "in.jsonl"), "The output in.jsonl would be written over what is read"),
        ((*RUN, "-o", "linked.jsonl"), "The output linked.jsonl would be written over what is read"),
        ((*RUN, "-o", "another.jsonl"), "failed rows another.errors.jsonl would be written over what is read"),
        ((*RUN, "--defaults", "defaults.json", "-o", "defaults.json"), "written over what is read"),
        ((*RUN, "-o", "folder"), "folder is a folder: name a file in it for the output."),
        ((*RUN, "-o", "nowhere/out.jsonl"), "There is no folder nowhere for the output"),
        ((*RUN, "-o", "pipe"), "pipe is not a regular file"),
        ((*SCORE, "-o", "table.csv"), "The output table.csv would be written over what is read"),
        ((*SCORE, "-o", "out.csv", "--report", "rubric.md"), "The report rubric.md would be written over what is read"),
        ((*SCORE, "-o", "out.csv", "--row", "row.txt", "--report", "row.txt"), "written over what is read"),
        ((*SCORE, "-o", "out.csv", "--report", "./out.csv"), "The output and the report would both be out.csv"),
        ((*SCORE, "-o", "out.csv", "--report", "folder"), "folder is a folder"),
        (("plan", "in.jsonl", "--html", "in.jsonl"), "The page in.jsonl would be written over what is read"),
    ],
)
def test_what_must_not_be_written_over_is_refused_before_anything_is_done(
    folder: Path, words: tuple[str, ...], said: str
) -> None:
    before = contents(folder)
    done = command(folder, *words, *(["--overwrite"] if words[0] != "plan" else []))
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert contents(folder) == before


def test_a_file_of_failed_rows_that_another_run_left_is_not_removed_unasked(folder: Path) -> None:
    (folder / "out.errors.jsonl").write_text("of another run\n")
    done = command(folder, *RUN, "-o", "out.jsonl")
    assert done.returncode == 2 and "out.errors.jsonl exists already" in done.stderr
    assert (folder / "out.errors.jsonl").read_text() == "of another run\n"
    assert command(folder, *RUN, "-o", "out.jsonl", "--overwrite").returncode == 0
    # It would be taken for this run's.
    assert not (folder / "out.errors.jsonl").exists()


@pytest.fixture(scope="module")
def ended(server: ServerProcess) -> tuple[str, str]:
    """A batch that has ended, and the id of its output file."""
    client = server.client()
    file = client.files.create(file=("in.jsonl", chat_file(3)), purpose="batch")
    batch_id = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id
    batch = Client(server.base_url).wait(Client(server.base_url).get(batch_id))
    assert batch.output_file_id is not None
    return batch_id, batch.output_file_id


@pytest.mark.parametrize("target", ["folder", "nowhere/out.jsonl", "pipe"])
def test_what_cannot_be_written_is_not_downloaded(
    server: ServerProcess, ended: tuple[str, str], folder: Path, target: str
) -> None:
    before = contents(folder)
    for what, name in (("batches", "download"), ("files", "get")):
        done = command(folder, what, name, ended[what == "files"], "-o", target, "--server", server.base_url)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert contents(folder) == before
