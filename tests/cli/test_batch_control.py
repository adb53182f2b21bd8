"""``gristmill batches pause / resume / priority / retry``, and ``download`` at any time, as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_command import Done, run_forked

import flaky_proxy as broken
from flaky_proxy import FlakyProxy
from gristmill.cli.show import downloaded
from gristmill.client import Client
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch, BatchProgress, RequestCounts
from requests_jsonl import CHAT, chat_line, jsonl
from server_process import ServerProcess

ROWS = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("-O", "latency=0.2", "-O", "slots=2", "-O", "fail_on=hopeless", "-O", "failure_kind=invalid_request")
    with ServerProcess(tmp_path_factory.mktemp("data"), *options) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [chat_line(f"row-{n}", "a hopeless case" if n % 4 == 0 else f"fine {n}") for n in range(ROWS)]
    (tmp_path / "in.jsonl").write_bytes(jsonl(rows))
    return tmp_path


def batches(folder: Path, server: ServerProcess, *words: object) -> Done:
    return run_forked(folder, ["batches", *map(str, words)], {"GRISTMILL_SERVER": server.base_url})


def ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


def test_a_batch_is_paused_looked_at_resumed_and_retried(server: ServerProcess, folder: Path) -> None:
    client = Client(server.base_url)
    batch_id = batches(folder, server, "submit", "in.jsonl", "--priority", "2").stdout.strip()
    while client.get(batch_id).request_counts.completed < 4:
        pass
    paused = batches(folder, server, "pause", batch_id)
    assert paused.returncode == 0 and "is paused. It still expires at 20" in paused.stdout
    assert f"gristmill batches resume {batch_id}" in paused.stdout
    assert "in_progress (paused)" in batches(folder, server, "list").stdout
    shown = batches(folder, server, "show", batch_id).stdout
    assert "waiting: paused" in shown and "Priority 2" in shown
    for words in (("-2",), ("--", "-3")):
        said = batches(folder, server, "priority", batch_id, *words).stdout
        assert said == f"{batch_id} has the priority {words[-1]}.\n"
    refused = batches(folder, server, "retry", batch_id)
    assert refused.returncode == 2 and "its rows are still being run" in refused.stderr

    part = batches(folder, server, "download", batch_id, "-o", "got.jsonl")
    assert part.returncode == 1 and part.stdout == "got.jsonl\ngot.errors.jsonl\n"
    assert f"of {ROWS} rows answered so far, " in part.stderr and "is in_progress (paused)" in part.stderr
    assert 4 <= len(ids(folder / "got.jsonl")) < ROWS and set(ids(folder / "got.errors.jsonl")) <= bad()
    piped = batches(folder, server, "download", batch_id, "-o", "-")
    assert piped.returncode == 1 and piped.stdout.count("\n") >= 4 and "This is a part" in piped.stderr

    assert batches(folder, server, "resume", batch_id).stdout == f"{batch_id} goes on.\n"
    assert batches(folder, server, "watch", batch_id).returncode == 1
    whole = batches(folder, server, "download", batch_id, "-o", "got.jsonl")
    assert whole.returncode == 0 and whole.stderr == ""
    assert ids(folder / "got.jsonl") == [f"row-{n}" for n in range(ROWS) if n % 4]
    assert set(ids(folder / "got.errors.jsonl")) == bad()

    retried = batches(folder, server, "retry", batch_id, "--watch", "--json")
    retry = json.loads(retried.stdout)
    assert retried.returncode == 1 and retry["gristmill"]["retry_of"] == batch_id
    assert retry["request_counts"] == {"total": 10, "completed": 0, "failed": 10}
    assert f"Retried by {retry['id']}" in batches(folder, server, "show", batch_id).stdout
    assert f"what was not answered in {batch_id}" in batches(folder, server, "show", retry["id"]).stdout
    merged = batches(folder, server, "download", batch_id, "-o", "got.jsonl")
    assert merged.returncode == 0 and f"retried in {retry['id']}: 30 of 40 rows answered" in merged.stderr
    assert (len(ids(folder / "got.jsonl")), set(ids(folder / "got.errors.jsonl"))) == (30, bad())
    assert sorted(path.name for path in folder.iterdir()) == ["got.errors.jsonl", "got.jsonl", "in.jsonl"]
    ended = batches(folder, server, "pause", batch_id)
    assert ended.returncode == 2 and "Cannot pause a batch with status 'completed'" in ended.stderr


def test_no_id_is_told_from_a_server_that_is_none(server: ServerProcess, folder: Path) -> None:
    """What a script has that names the batch by a variable which is not set."""
    words = (("show",), ("pause",), ("retry",), ("priority", 1), ("download", "-o", "got.jsonl"))
    for command, *rest in words:
        told = batches(folder, server, command, "", *rest)
        assert (told.returncode, told.stderr) == (2, "Error: '' is no id of one of the server's batches.\n"), command
    assert "'../files' is no id" in batches(folder, server, "pause", "../files").stderr


def bad() -> set[str]:
    return {f"row-{n}" for n in range(0, ROWS, 4)}


def test_results_that_break_off_go_on_behind_the_last_whole_line(server: ServerProcess, folder: Path) -> None:
    with FlakyProxy(server.base_url) as proxy:
        client = Client(proxy.base_url)
        batch = client.wait(client.submit(folder / "in.jsonl"))
        expected: list[bytes] = []
        assert client.stream_results(batch, "output", expected.append) == 30
        size = len(b"".join(expected))
        for cuts in ([size // 3, size // 3], [1], [size - 1]):
            proxy.faults.extend(broken.cut_after(cut) for cut in cuts)
            got: list[bytes] = []
            assert client.stream_results(batch, "output", got.append) == 30
            assert b"".join(got) == b"".join(expected)
        # Also in the middle of a file that is being made: it takes the place of the old one whole, or not at all.
        (folder / "got.jsonl").write_bytes(b"old")
        impatient = Client(proxy.base_url, patience=0)
        before = {path.name for path in folder.iterdir()}
        pending = impatient.get(impatient.submit(folder / "in.jsonl").id)
        proxy.always = broken.cut_after(0)
        with pytest.raises(UserError):
            impatient.save(pending, folder / "got.jsonl")
        assert (folder / "got.jsonl").read_bytes() == b"old" and {path.name for path in folder.iterdir()} == before
        proxy.always = None
        client.cancel(pending.id)


def test_a_server_that_has_no_results_before_the_end_is_told_of_in_a_sentence(server: ServerProcess) -> None:
    other = Batch("batch_1", CHAT, "file-1", "24h", "in_progress", 1)
    with pytest.raises(UserError, match="in_progress, and this server gives its results when it has ended"):
        Client(server.base_url).save(other, "got.jsonl")


def test_what_was_downloaded_is_told_for_what_it_is() -> None:
    def batch(name: str, status: str, total: int, completed: int, **progress: Any) -> Batch:
        counts = RequestCounts(total, completed, 0)
        known = BatchProgress(**progress)
        return Batch(name, CHAT, "file-1", "24h", status, 1, request_counts=counts, gristmill=known)

    assert downloaded([batch("a", "completed", 9, 9)]) == ""
    assert downloaded([batch("a", "failed", 0, 0)]) == "No row was answered, so there is no output file."
    assert "This is a part: no row has run yet. a is validating;" in downloaded([batch("a", "validating", 0, 0)])
    both = [batch("a", "completed", 9, 5, retried_by="b"), batch("b\x1b[2J", "in_progress", 4, 3)]
    told = downloaded(both)
    assert "8 of 9 rows answered so far. b is in_progress;" in told and "retried in b: 8 of 9" in told
