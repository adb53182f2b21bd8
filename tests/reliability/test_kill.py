"""SIGKILL at any moment costs nothing but time: the batch finishes by itself, once for every row."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from watched_batch import Journal, Stored, peek, read_stored, wait_until

from requests_jsonl import chat_line
from server_process import ServerProcess

ROWS = 2_000
#: Kills wanted in each phase, at the least; phases last as long as they need to be hit that often.
WANTED = {"validating": 7, "in_progress": 9, "finalizing": 5}
#: The longest pause (seconds) between seeing a phase and killing in it.
PAUSES = {"validating": 0.6, "in_progress": 0.2, "finalizing": 0.2}
#: Makes lines long to read: validation looks through it, the engine never sees it.
PADDING = json.dumps([[number, {"x": "y"}] for number in range(6_000)]).encode()
#: Makes ids, and with them results and files, long to write.
TAIL = "x" * 20_000


class Kill(NamedTuple):
    journal_size: int
    stored: Stored


class Outcome(NamedTuple):
    batch: object
    output: list[bytes]
    errors: list[bytes]
    kills: list[Kill]
    journal: Journal


def fails(row: int) -> bool:
    return row % 10 == 3


def id_of(row: int) -> str:
    return f"row-{row}-{TAIL}"


def line_of(row: int) -> bytes:
    text = f"Rate {'the hopeless' if fails(row) else 'the'} candidate row-{row}"
    line = json.dumps(chat_line(id_of(row), text, n=128, max_tokens=8)).encode()
    return line[:-1] + b', "padding": ' + PADDING + b"}\n"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One batch, its server killed again and again until every phase was hit often enough."""
    folder = tmp_path_factory.mktemp("kill")
    journal = Journal(folder / "journal")
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"seed of this run (set KILL_SEED to repeat it): {seed}")
    options = ["-O", f"journal={journal.path}", "-O", "latency=0.03", "-O", "slots=16"]
    options += ["-O", "fail_on=the hopeless", "-O", "failure_kind=invalid_request"]
    server = ServerProcess(folder / "data", *options)
    with server:
        client = server.client()
        data = b"".join(line_of(row) for row in range(ROWS))
        file = client.files.create(file=("rows.jsonl", data), purpose="batch")
        batch_id = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        ).id
        kills = _kill_in_every_phase(server, journal, random.Random(seed), folder / "scratch")
        server.start()
        wait_until(lambda: peek(server.data).status == "completed", "the batch to complete by itself")
        client = server.client()
        batch = client.batches.retrieve(batch_id)
        output = client.files.content(batch.output_file_id).content.splitlines()
        errors = client.files.content(batch.error_file_id).content.splitlines()
    print("kills by phase:", dict(Counter(kill.stored.status for kill in kills)))
    print("rows stored at each kill:", [len(kill.stored.results) for kill in kills])
    return Outcome(batch, output, errors, kills, journal)


def _kill_in_every_phase(server: ServerProcess, journal: Journal, chance: random.Random, scratch: Path) -> list[Kill]:
    kills: list[Kill] = []
    missing = Counter(WANTED)
    while True:
        phase = _wait_for_wanted_phase(server, missing)
        if phase == "completed":
            server.kill()
            return kills
        time.sleep(chance.uniform(0, PAUSES[phase]))
        server.kill()
        stored = read_stored(server.data, scratch)
        if stored.status == "completed":
            return kills
        kills.append(Kill(journal.size(), stored))
        missing[stored.status] -= 1
        server.spawn()


def _wait_for_wanted_phase(server: ServerProcess, missing: Counter[str]) -> str:
    """Until this process works on the batch, in a phase that has not been hit often enough, and gets on with it."""
    found = peek(server.data)
    before = found.counted

    def there() -> bool:
        nonlocal found
        found = peek(server.data)
        if found.status == "completed":
            return True
        working = found.is_run_by(server.pid) and (found.status != "in_progress" or found.counted > before)
        return working and missing[found.status] > 0

    wait_until(there, f"one of {+missing}")
    return found.status


def test_the_server_was_killed_at_twenty_moments_across_validation_running_and_finalizing(outcome: Outcome) -> None:
    phases = Counter(kill.stored.status for kill in outcome.kills)
    assert sum(phases.values()) >= 20
    assert phases["validating"] >= 5 and phases["in_progress"] >= 5 and phases["finalizing"] >= 2, phases


def test_every_line_is_in_exactly_one_file_exactly_once_and_in_input_order(outcome: Outcome) -> None:
    answered = [json.loads(line)["custom_id"] for line in outcome.output]
    failed = [json.loads(line)["custom_id"] for line in outcome.errors]
    assert answered == [id_of(row) for row in range(ROWS) if not fails(row)]
    assert failed == [id_of(row) for row in range(ROWS) if fails(row)]


def test_counts_agree_with_the_files(outcome: Outcome) -> None:
    counts = outcome.batch.request_counts  # type: ignore[attr-defined]
    assert (counts.total, counts.completed, counts.failed) == (ROWS, len(outcome.output), len(outcome.errors))


def test_a_stored_result_is_never_changed_by_what_comes_after(outcome: Outcome) -> None:
    # Answers carry random ids, so a row that ran again would show.
    final = {**_by_line(outcome.output), **_by_line(outcome.errors)}
    for kill in outcome.kills:
        for line, payload in kill.stored.results.items():
            assert final[line] == payload


def test_no_row_with_a_stored_result_runs_again(outcome: Outcome) -> None:
    for kill in outcome.kills:
        stored = {f"row-{line - 1}" for line in kill.stored.results}
        assert not stored.intersection(outcome.journal.rows(kill.journal_size))


def test_the_engine_answered_every_row_and_repeated_only_what_was_in_flight(outcome: Outcome) -> None:
    times = Counter(outcome.journal.rows())
    assert set(times) == {f"row-{row}" for row in range(ROWS) if not fails(row)}
    running = sum(kill.stored.status == "in_progress" for kill in outcome.kills)
    assert max(times.values()) <= 1 + running


def _by_line(lines: list[bytes]) -> dict[int, bytes]:
    return {int(json.loads(line)["custom_id"].split("-")[1]) + 1: line for line in lines}
