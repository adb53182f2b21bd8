"""A batch whose input goes away: it fails with the reason, or goes on where the bytes are kept for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from test_stop_and_resume import answered, submit
from watched_batch import peek, wait_until

from requests_jsonl import chat_line, jsonl
from server_process import ServerProcess

#: Rows of 40 kB: the feed reads a few megabytes ahead, and has far more to read.
ROWS = 1_500
INPUT = jsonl([chat_line(f"row-{row}", f"{'x' * 40_000} row-{row}") for row in range(ROWS)])


def blob(data: Path) -> Path:
    """The only file there is."""
    (found,) = (data / "blobs" / "files").iterdir()
    return found


def lose(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.truncate(len(INPUT) // 2)


@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_a_batch_whose_input_is_lost_while_it_runs_fails_with_the_reason_and_keeps_its_answers(
    data: Path, how: str
) -> None:
    with ServerProcess(data, "-O", "latency=0.02", "-O", "slots=8") as server:
        client = server.client()
        batch_id = submit(client, INPUT)
        wait_until(lambda: peek(data).counted > 20, "some rows")
        lose(blob(data), how)
        wait_until(lambda: client.batches.retrieve(batch_id).status == "failed", "the batch to fail")
        batch = client.batches.retrieve(batch_id)
        assert batch.failed_at and batch.errors and batch.errors.data
        assert batch.errors.data[0].code == "input_file_lost"
        assert batch.output_file_id and batch.error_file_id and batch.request_counts
        output = client.files.content(batch.output_file_id).content.splitlines()
        errors = [json.loads(line) for line in client.files.content(batch.error_file_id).content.splitlines()]
        assert len(output) == batch.request_counts.completed > 20
        assert len(output) + len(errors) == ROWS
        assert {line["error"]["code"] for line in errors} == {"input_file_lost"}


@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_a_batch_whose_input_is_lost_before_it_is_validated_fails_with_the_reason(data: Path, how: str) -> None:
    with ServerProcess(data) as server:
        client = server.client()
        file = client.files.create(file=("rows.jsonl", INPUT), purpose="batch")
        lose(blob(data), how)
        batch_id = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        ).id
        wait_until(lambda: client.batches.retrieve(batch_id).status == "failed", "the batch to fail")
        batch = client.batches.retrieve(batch_id)
        assert batch.errors and batch.errors.data and batch.errors.data[0].code == "input_file_lost"


def test_a_file_that_is_deleted_while_its_batch_is_validated_is_read_after_a_kill_all_the_same(data: Path) -> None:
    server = ServerProcess(data)
    killer = str(Path(__file__).with_name("killed_before.py"))
    server.program = (sys.executable, killer, "gristmill.storage.sql.rows:SqlRows.add", "2")
    with server:
        client = server.client(max_retries=0)
        batch_id = submit(client, INPUT)
        client.files.delete(client.batches.retrieve(batch_id).input_file_id)
        wait_until(lambda: not server.alive(), "the server to be killed while it validates")
    with ServerProcess(data) as server:
        assert answered(server.client(), batch_id) == [f"row-{row}" for row in range(ROWS)]
        wait_until(lambda: len(list((data / "blobs" / "files").iterdir())) == 1, "the deleted input's bytes to go")
