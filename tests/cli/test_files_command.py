"""``gristmill files`` and ``-``: files on a server, and standard input and output in their place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked_command import Done, run_forked

import flaky_proxy as broken
from flaky_proxy import FlakyProxy
from requests_jsonl import chat_file, chat_line, jsonl
from server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("-O", "fail_on=hopeless", "-O", "failure_kind=invalid_request")
    with ServerProcess(tmp_path_factory.mktemp("data"), *options) as running:
        yield running


Ask = Callable[..., Done]


@pytest.fixture
def ask(server: ServerProcess, tmp_path: Path) -> Ask:
    def run(*words: object, stdin: bytes = b"", at: str = server.base_url) -> Done:
        return run_forked(tmp_path, [str(word) for word in words], {"GRISTMILL_SERVER": at}, stdin)

    return run


GOOD_AND_BAD = jsonl([chat_line("good"), chat_line("bad", "a hopeless case")])


def ended_batch(ask: Ask, rows: bytes) -> dict:
    return json.loads(ask("batches", "submit", "-", "--watch", "--json", stdin=rows).stdout)


def test_files_are_listed_fetched_and_removed(ask: Ask, tmp_path: Path) -> None:
    file_id = ended_batch(ask, GOOD_AND_BAD)["input_file_id"]
    listed = ask("files", "list", "--purpose", "batch")
    assert listed.returncode == 0 and file_id in listed.stdout and f"{len(GOOD_AND_BAD):,}" in listed.stdout
    assert file_id in [file["id"] for file in json.loads(ask("files", "list", "--json").stdout)["data"]]
    assert ask("files", "get", file_id, "-o", "got.jsonl").returncode == 0
    assert (tmp_path / "got.jsonl").read_bytes() == GOOD_AND_BAD
    assert ask("files", "get", file_id).stdout.encode() == GOOD_AND_BAD
    removed = ask("files", "rm", file_id)
    assert (removed.returncode, removed.stdout) == (0, f"Deleted {file_id}.\n")
    assert file_id not in ask("files", "list").stdout
    gone = ask("files", "rm", file_id)
    assert gone.returncode == 2 and file_id in gone.stderr


def test_a_list_that_is_cut_off_says_how_to_see_more(ask: Ask) -> None:
    for _ in range(2):
        ended_batch(ask, GOOD_AND_BAD)
    cut = ask("files", "list", "--limit", "1")
    assert len(cut.stdout.splitlines()) == 2 and "--after file-" in cut.stderr


def test_the_list_of_batches_tells_completed_and_failed_rows_apart(ask: Ask) -> None:
    batch = ended_batch(ask, GOOD_AND_BAD + jsonl([chat_line("fine")]))
    heading, row = ask("batches", "list", "--limit", "1").stdout.splitlines()
    assert heading.split() == ["id", "status", "model", "completed", "failed", "total", "created"]
    assert row.split()[:6] == [batch["id"], "completed", "simulated", "2", "1", "3"]


def test_a_batch_from_standard_input_to_standard_output(ask: Ask) -> None:
    batch = ended_batch(ask, GOOD_AND_BAD)
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    done = ask("batches", "download", batch["id"], "-o", "-")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["custom_id"], line["response"]["status_code"]) for line in lines] == [("good", 200), ("bad", 400)]
    assert done.stderr == ""


def test_nothing_on_standard_input_is_a_sentence(ask: Ask) -> None:
    done = ask("batches", "submit", "-")
    assert done.returncode == 2 and done.stderr.startswith("Error: ")


def test_a_download_to_standard_output_goes_on_over_broken_connections(server: ServerProcess, ask) -> None:
    file_id = ended_batch(ask, chat_file(4_000))["input_file_id"]
    with FlakyProxy(server.base_url) as proxy:
        proxy.faults.extend([broken.forward, broken.cut_after(300_000), broken.bad_gateway])
        done = ask("files", "get", file_id, at=proxy.base_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.encode() == chat_file(4_000)


def test_a_download_that_cannot_go_on_where_it_stopped_says_what_to_do(server: ServerProcess, ask: Ask) -> None:
    file_id = ended_batch(ask, chat_file(4_000))["input_file_id"]
    with FlakyProxy(server.base_url) as proxy:
        proxy.faults.extend([broken.forward, broken.cut_after(300_000), broken.without_range])
        done = ask("files", "get", file_id, at=proxy.base_url)
    assert done.returncode == 2 and "with -o FILE" in done.stderr
    assert chat_file(4_000).startswith(done.stdout.encode())


def test_a_file_whose_removal_was_not_confirmed_is_removed_all_the_same(server: ServerProcess, ask: Ask) -> None:
    file_id = ended_batch(ask, GOOD_AND_BAD)["input_file_id"]
    with FlakyProxy(server.base_url) as proxy:
        proxy.faults.append(broken.lose_answer)
        assert ask("files", "rm", file_id, at=proxy.base_url).stdout == f"Deleted {file_id}.\n"


def test_a_reader_that_has_enough_ends_a_download_quietly(server: ServerProcess, ask: Ask, tmp_path: Path) -> None:
    file_id = ended_batch(ask, chat_file(4_000))["input_file_id"]
    command = [sys.executable, "-m", "gristmill", "files", "get", file_id, "--server", server.base_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == (b"", 0)
