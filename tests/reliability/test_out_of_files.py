"""A process that has no file descriptor left works on by itself once it has some again."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
from test_stop_and_resume import answered, submit
from watched_batch import peek, wait_until

from requests_jsonl import chat_file, chat_line, jsonl
from server_process import ServerProcess


class DescriptorLimit:
    """Takes a process the right to open anything, until it is given back."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    def take(self) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, (3, self._before[1]))

    def give_back(self) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, self._before)


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_a_batch_whose_process_ran_out_of_file_descriptors_ends_by_itself(data: Path, seconds: float) -> None:
    # Long lines: the feed has to open the input again and again.
    padding = "x" * 40_000
    rows = jsonl([chat_line(f"row-{row}", f"{padding} row-{row}") for row in range(1_500)])
    with ServerProcess(data, "-O", "latency=0.01", "-O", "slots=8") as server:
        client = server.client()
        batch_id = submit(client, rows)
        wait_until(lambda: peek(data).counted > 20, "some rows")
        limit = DescriptorLimit(server.pid)
        limit.take()
        time.sleep(seconds)
        limit.give_back()
        assert answered(client, batch_id) == [f"row-{row}" for row in range(1_500)]
        assert server.alive()


def test_a_batch_that_is_created_without_file_descriptors_runs_once_there_are_some(data: Path) -> None:
    with ServerProcess(data, "-O", "latency=0.01") as server:
        client = server.client()
        file = client.files.create(file=("rows.jsonl", chat_file(50)), purpose="batch")
        limit = DescriptorLimit(server.pid)
        limit.take()
        batch_id = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        ).id
        time.sleep(1)
        limit.give_back()
        assert answered(client, batch_id) == [f"row-{row}" for row in range(50)]
