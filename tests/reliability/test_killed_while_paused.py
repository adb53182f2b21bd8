"""SIGKILL around a pause and a retry: what was said stays said, and no row with a stored result runs again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from watched_batch import Journal, wait_until

from gristmill.client import Client
from gristmill.wire.batch import Batch
from requests_jsonl import chat_line, jsonl
from server_process import ServerProcess

ROWS, SLOTS = 200, 4


def paused(batch: Batch) -> bool:
    return batch.gristmill is not None and batch.gristmill.paused_at is not None


def test_a_pause_a_resume_and_a_retry_outlast_kills(tmp_path: Path) -> None:
    rows = [chat_line(f"row-{n}", f"{'hopeless' if n % 10 == 3 else 'fine'} row-{n}") for n in range(ROWS)]
    (tmp_path / "in.jsonl").write_bytes(jsonl(rows))
    journal = Journal(tmp_path / "journal")
    options = ["-O", f"journal={journal.path}", "-O", "latency=0.05", "-O", f"slots={SLOTS}"]
    options += ["-O", "fail_on=hopeless", "-O", "failure_kind=invalid_request"]
    with ServerProcess(tmp_path / "data", *options) as server:
        client = Client(server.base_url)
        batch_id = client.submit(tmp_path / "in.jsonl").id
        wait_until(lambda: client.get(batch_id).request_counts.completed >= 20, "rows to be answered")
        # At once: the pause was answered for, and rows are in flight.
        client.pause(batch_id)
        server.kill()
        server.start()
        client = Client(server.base_url)
        batch = client.get(batch_id)
        assert paused(batch) and batch.status == "in_progress" and batch.request_counts.completed >= 20
        asked = journal.size()
        # Others run, and it does not.
        (tmp_path / "other.jsonl").write_bytes(jsonl([chat_line("other", "other")]))
        client.wait(client.submit(tmp_path / "other.jsonl"))
        assert journal.rows(asked) == ["other"] and client.get(batch_id).request_counts == batch.request_counts

        client.resume(batch_id)
        server.kill()
        server.start()
        client = Client(server.base_url)
        batch = client.wait(client.get(batch_id))
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 180, 20)
        times = Counter(row for row in journal.rows() if row != "other")
        # What was in flight at the kills, and nothing else, was asked again.
        assert len(times) == 180 and sum(times.values()) <= 180 + 2 * 2 * SLOTS

        retry = client.retry(batch_id)
        server.kill()
        server.start()
        client = Client(server.base_url)
        assert client.wait(client.get(retry.id)).request_counts.failed == 20
        assert [each.id for each in client.chain(client.get(batch_id))] == [batch_id, retry.id]
        assert len(journal.rows()) == sum(times.values()) + 1
