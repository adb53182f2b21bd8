"""Several servers on one PostgreSQL and one blob folder: whichever is killed or hangs, another goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from watched_batch import Journal

from postgres_server import PostgresServer
from requests_jsonl import chat_line
from server_process import ServerProcess

ROWS = 2_000
SLOTS = 8
#: Within which a batch is taken over whose server is gone (seconds).
TAKEN_OVER = 30.0
CHAT = "/v1/chat/completions"


class Cluster:
    """A server for each of ``models``, which is the only one that it has."""

    def __init__(self, postgres: PostgresServer, folder: Path, models: Sequence[str]) -> None:
        self.url = postgres.new_database()
        self._postgres = postgres
        self.journals = [Journal(folder / f"journal-{number}") for number in range(len(models))]
        shared = [
            "--database",
            self.url,
            "--blobs",
            str(folder / "blobs"),
            "-O",
            f"slots={SLOTS}",
            "-O",
            "latency=0.02",
        ]
        self.servers = [
            ServerProcess(
                folder / f"data-{number}", *shared, "-O", f"journal={journal.path}", "--model", models[number]
            )
            for number, journal in enumerate(self.journals)
        ]

    def __enter__(self) -> Cluster:
        for server in self.servers:
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            if server.alive():
                os.kill(server.pid, signal.SIGCONT)
                server.kill()

    def ask(self, query: str) -> list[tuple[object, ...]]:
        return self._postgres.execute(query, self.url.rpartition("/")[2])

    def runner(self) -> int | None:
        """Which server works on the only batch."""
        ((owner, valid),) = self.ask(
            "SELECT coalesce(lease_owner, ''), lease_until > extract(epoch from clock_timestamp()) FROM batches"
        )
        pids = [server.pid for server in self.servers]
        found = [number for number, pid in enumerate(pids) if f":{pid}:" in str(owner)]
        return found[0] if found and valid else None

    def counted(self) -> int:
        ((count,),) = self.ask("SELECT completed + failed FROM batches")
        assert isinstance(count, int)
        return count

    def stored(self) -> set[int]:
        """The rows that have a result."""
        return {int(str(line)) - 1 for (line,) in self.ask("SELECT line FROM public_batch_1.results")}

    def answered(self) -> list[Counter[int]]:
        """The rows that each server's engine has answered, with how often."""
        return [
            Counter(int(line.rpartition("row-")[2]) for line in journal.path.read_text().splitlines())
            if journal.path.exists()
            else Counter()
            for journal in self.journals
        ]


def wait_until(there: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@pytest.fixture
def cluster(postgres: PostgresServer, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(postgres, tmp_path, ["simulated"] * 3) as running:
        yield running


def test_who_is_killed_or_hangs_is_followed_by_another_and_every_row_is_in_the_files_once(cluster: Cluster) -> None:
    rows = b"".join(json.dumps(chat_line(f"row-{row}", f"Rate row-{row}")).encode() + b"\n" for row in range(ROWS))
    clients = [server.client(max_retries=0) for server in cluster.servers]
    file = clients[0].files.create(file=("rows.jsonl", rows), purpose="batch")
    batch_id = clients[1].batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id
    wait_until(lambda: cluster.counted() > 100, "rows to be stored")

    # It hangs: another takes over.
    hung = cluster.runner()
    assert hung is not None
    os.kill(cluster.servers[hung].pid, signal.SIGSTOP)
    stored_at_hang, answered_at_hang = cluster.stored(), cluster.answered()
    wait_until(lambda: cluster.runner() not in (hung, None), "another to take over", TAKEN_OVER)
    second = cluster.runner()
    assert second is not None
    here = clients[3 - hung - second]
    before = len(cluster.stored())
    wait_until(lambda: len(cluster.stored()) > before + 100, "the other to go on")

    # It wakes, finds that it has lost the batch, and asks its engine for no row more than it had asked for before.
    os.kill(cluster.servers[hung].pid, signal.SIGCONT)
    wait_until(lambda: "another runner took the batch over" in "".join(cluster.servers[hung].log), "it to say so")
    assert cluster.runner() == second
    woken = cluster.answered()[hung] - answered_at_hang[hung]
    assert woken.total() <= SLOTS

    # All of them tell the same of the batch, whoever runs it.
    told = [client.batches.retrieve(batch_id) for client in clients]
    assert {batch.status for batch in told} == {"in_progress"}

    # Who took over is killed: another takes over.
    cluster.servers[second].kill()
    stored_at_kill, answered_at_kill = cluster.stored(), cluster.answered()
    assert stored_at_hang < stored_at_kill and len(stored_at_kill) < ROWS
    wait_until(lambda: cluster.runner() not in (second, None), "another to take over", TAKEN_OVER)
    wait_until(lambda: here.batches.retrieve(batch_id).status == "completed", "the end")

    batch = here.batches.retrieve(batch_id)
    assert batch.request_counts.completed == ROWS and batch.error_file_id is None
    lines = here.files.content(batch.output_file_id).content.splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == [f"row-{row}" for row in range(ROWS)]
    # No stored result was asked again.
    answered = cluster.answered()
    for number in range(3):
        later = answered[number] - answered_at_kill[number]
        assert not stored_at_kill & set(later)
        if number != hung:
            assert not stored_at_hang & set(answered[number] - answered_at_hang[number])


def test_what_is_asked_of_one_server_is_done_by_whichever_runs_the_batch(cluster: Cluster) -> None:
    rows = b"".join(json.dumps(chat_line(f"row-{row}", f"Rate row-{row}")).encode() + b"\n" for row in range(ROWS))
    clients = [server.client(max_retries=0) for server in cluster.servers]
    # The parts of an upload arrive at different servers.
    upload = clients[0].uploads.create(
        bytes=len(rows), filename="rows.jsonl", mime_type="application/jsonl", purpose="batch"
    )
    half = len(rows) // 2
    first = clients[1].uploads.parts.create(upload.id, data=rows[:half])
    second = clients[2].uploads.parts.create(upload.id, data=rows[half:])
    file = clients[0].uploads.complete(upload.id, part_ids=[first.id, second.id]).file
    assert file is not None
    batch_id = clients[1].batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id
    wait_until(lambda: cluster.counted() > 50, "rows to be stored")
    runner = cluster.runner()
    assert runner is not None
    other = clients[(runner + 1) % 3]

    def progress() -> dict[str, object]:
        told = other.batches.retrieve(batch_id).to_dict()["gristmill"]
        assert isinstance(told, dict)
        return told

    # With the heartbeat.
    wait_until(lambda: progress()["rows_per_second"] is not None, "another server to tell how fast it is")
    other.post(f"/batches/{batch_id}/pause", cast_to=object)
    wait_until(lambda: cluster.runner() is None, "the runner to leave a paused batch")
    assert progress()["waiting_for"] == "paused"
    clients[runner].post(f"/batches/{batch_id}/resume", cast_to=object)
    wait_until(lambda: cluster.runner() is not None, "somebody to go on")
    runner = cluster.runner()
    assert runner is not None
    clients[(runner + 2) % 3].batches.cancel(batch_id)
    wait_until(lambda: other.batches.retrieve(batch_id).status == "cancelled", "the cancel to be heeded")
    batch = other.batches.retrieve(batch_id)
    files = [each for each in (batch.output_file_id, batch.error_file_id) if each]
    lines = [line for each in files for line in other.files.content(each).content.splitlines()]
    assert sorted(json.loads(line)["custom_id"] for line in lines) == sorted(f"row-{row}" for row in range(ROWS))


def test_connections_that_are_cut_and_a_database_that_crashes_cost_no_row_and_no_lease(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    rows = b"".join(json.dumps(chat_line(f"row-{row}", f"Rate row-{row}")).encode() + b"\n" for row in range(ROWS))
    with Cluster(postgres, tmp_path, ["simulated"] * 2) as cluster:
        client = cluster.servers[0].client()
        file = client.files.create(file=("rows.jsonl", rows), purpose="batch")
        batch_id = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id
        for goal in range(200, 1_000, 200):
            wait_until(lambda: cluster.counted() >= goal, "rows to be stored")  # noqa: B023
            cluster.ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        runner = cluster.runner()
        postgres.restart(signal.SIGKILL)
        wait_until(lambda: cluster.counted() >= 1_200, "rows to be stored again")
        assert cluster.runner() == runner is not None
        wait_until(lambda: client.batches.retrieve(batch_id).status == "completed", "the end")
        output = client.batches.retrieve(batch_id).output_file_id
        lines = client.files.content(output).content.splitlines()
        assert [json.loads(line)["custom_id"] for line in lines] == [f"row-{row}" for row in range(ROWS)]
        assert sum(cluster.answered(), Counter()) == Counter(range(ROWS))


def test_a_batch_is_run_by_the_server_that_has_its_model_and_waits_while_that_one_is_gone(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with Cluster(postgres, tmp_path, ["one", "two"]) as cluster:
        client = cluster.servers[0].client(max_retries=0)

        def made(model: str, rows: int) -> str:
            lines = [chat_line(f"row-{row}", f"Rate row-{row}", model=model) for row in range(rows)]
            data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            file = client.files.create(file=("rows.jsonl", data), purpose="batch")
            return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id

        def status(batch_id: str) -> str:
            return client.batches.retrieve(batch_id).status

        def waits_for(batch_id: str) -> str:
            told = client.batches.retrieve(batch_id).to_dict()["gristmill"]
            assert isinstance(told, dict)
            return str(told["waiting_for"])

        # Also of a server that came when the other was there already.
        for model, answered in (("two", [0, 3]), ("one", [3, 3])):
            batch_id = made(model, 3)
            wait_until(lambda: status(batch_id) in ("completed", "failed"), "the batch to be run")  # noqa: B023
            assert status(batch_id) == "completed"
            assert [counter.total() for counter in cluster.answered()] == answered
        nobodys = made("three", 3)
        wait_until(lambda: status(nobodys) == "failed", "the batch to be refused")

        longer = made("two", 2_000)
        wait_until(lambda: status(longer) == "in_progress", "the batch to be run")
        cluster.servers[1].stop()
        wait_until(lambda: "the model 'two'" in waits_for(longer), "the batch to say what it waits for")
        assert client.batches.retrieve(longer).request_counts.failed == 0
        cluster.servers[1].start()
        wait_until(lambda: status(longer) == "completed", "the batch to go on")
        assert client.batches.retrieve(longer).request_counts.completed == 2_000
