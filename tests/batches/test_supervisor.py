"""Running batches inside this process: what a black-box test cannot time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from gristmill.batches import heartbeat
from gristmill.batches import supervisor as supervising
from gristmill.batches.host import BatchHost, HostSettings
from gristmill.batches.input_reader import Limits
from gristmill.batches.runner import Runner
from gristmill.dispatch.stop import Why
from gristmill.engines.registry import EngineSettings
from gristmill.storage.answers import AnswerStore
from gristmill.storage.errors import StorageError
from gristmill.storage.open import StorageSettings, storage_of
from gristmill.storage.records import Claim, FileRecord, Lease, Stage, file_blob
from gristmill.storage.sql.schema import batches as batches_table
from gristmill.telemetry.metrics import LEASE_TAKEOVERS
from gristmill.wire.batch import Batch, CreateBatchRequest
from requests_jsonl import CHAT, chat_file, chat_line, jsonl

Story = Callable[[BatchHost], Awaitable[None]]


def tell(folder: Path, story: Story, limits: Limits | None = None, **options: object) -> None:
    """Run ``story`` against a host whose simulated engine has ``options``."""

    async def main() -> None:
        engine = EngineSettings("simulated", options={name: str(value) for name, value in options.items()})
        host = BatchHost(HostSettings(StorageSettings(folder), engine, stop_grace=0, limits=limits or Limits()))
        await host.start()
        try:
            async with asyncio.timeout(60):
                await story(host)
        finally:
            await host.stop()

    asyncio.run(main())


async def add_file(host: BatchHost, data: bytes, file_id: str = "file-1") -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    size = await host.storage.blobs.write(file_blob(file_id), chunks())
    await host.storage.metadata.files.add(FileRecord(file_id, size, 1, "in.jsonl", "batch"))


async def submit(host: BatchHost, data: bytes, window: str = "24h") -> Batch:
    await add_file(host, data)
    return await host.batches.create(CreateBatchRequest("file-1", CHAT, window))


async def reach(host: BatchHost, batch_id: str, condition: Callable[[Batch], bool]) -> Batch:
    while not condition(batch := await host.batches.get(batch_id)):
        await asyncio.sleep(0.005)
    return batch


async def end(host: BatchHost, batch_id: str) -> Batch:
    return await reach(host, batch_id, lambda batch: batch.status in ("completed", "failed", "expired", "cancelled"))


async def lines(host: BatchHost, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    data = b"".join([chunk async for chunk in host.storage.blobs.stream(file_blob(file_id))])
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("after", [0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2])
def test_a_batch_cancelled_at_any_moment_ends_with_every_line_in_one_file(tmp_path: Path, after: float) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(300))
        await asyncio.sleep(after)
        assert (await host.batches.cancel(batch.id)).status in ("cancelling", "cancelled")
        batch = await end(host, batch.id)
        output, errors = await lines(host, batch.output_file_id), await lines(host, batch.error_file_id)
        assert batch.status == "cancelled" and batch.cancelling_at and batch.cancelled_at
        assert (len(output), 0) == (batch.request_counts.completed, batch.request_counts.failed)
        assert sorted(line["custom_id"] for line in output + errors) == sorted(f"row-{row}" for row in range(300))
        assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
        assert batch.request_counts.completed < 300

    tell(tmp_path, story, latency=0.05, slots=8)


def test_a_cancel_that_comes_while_the_status_is_being_read_is_not_missed(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batches: Any = host.storage.metadata.batches
        get, cancelled = batches.get, asyncio.Event()

        async def slow_get(batch_id: str) -> Any:
            record = await get(batch_id)
            if record.status == "in_progress" and not cancelled.is_set():
                # The runner has read "in_progress"; before it goes on, the batch is cancelled.
                cancelled.set()
                await host.batches.cancel(batch_id)
            return record

        batches.get = slow_get
        batch = await submit(host, chat_file(2_000))
        batch = await end(host, batch.id)
        assert batch.status == "cancelled" and batch.request_counts.completed < 2_000

    tell(tmp_path, story, latency=0.05, slots=8)


def test_a_batch_out_of_time_keeps_what_is_done_and_says_what_is_not(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(200))
        await reach(host, batch.id, lambda seen: seen.request_counts.completed >= 10)
        await host.storage.metadata.batches.change(batch.id, {"expires_at": 1}, expected="in_progress")
        await host.supervisor.stop(0)
        revived = supervising.Supervisor(host.storage, host.dispatcher, AnswerStore(tmp_path / "answers.db"), tmp_path)
        running = asyncio.create_task(revived.run())
        batch = await end(host, batch.id)
        await revived.stop(0)
        running.cancel()
        output, errors = await lines(host, batch.output_file_id), await lines(host, batch.error_file_id)
        assert batch.status == "expired" and batch.expired_at
        assert len(output) == batch.request_counts.completed >= 10
        assert {line["error"]["code"] for line in errors} == {"batch_expired"}
        assert sorted(line["custom_id"] for line in output + errors) == sorted(f"row-{row}" for row in range(200))

    tell(tmp_path, story, latency=0.05, slots=4)


def test_a_storage_that_refuses_for_a_while_puts_the_batch_off_and_no_row_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "FAILURE_PAUSE", 0.2)
    monkeypatch.setattr(supervising, "RELEASE_PAUSE", 0.05)

    async def story(host: BatchHost) -> None:
        rows, batches = host.storage.metadata.rows, host.storage.metadata.batches
        calls = {"commit": 0, "release": 0}
        quiet_since = []

        def failing(method: Any, name: str, times: int) -> Any:
            async def call(*arguments: Any) -> Any:
                calls[name] += 1
                if name == "commit":
                    quiet_since.append(host.supervisor.last_result_at(batch.id))
                if calls[name] <= times:
                    raise StorageError("The disk is full: free some space.")
                return await method(*arguments)

            return call

        monkeypatch.setattr(rows, "commit", failing(rows.commit, "commit", 2))
        # Giving the lease back needs the disk as well; a lease kept for ever would keep the batch for ever.
        monkeypatch.setattr(batches, "release", failing(batches.release, "release", 3))
        batch = await submit(host, chat_file(50))
        waits = await reach(host, batch.id, lambda seen: bool(seen.gristmill and seen.gristmill.waiting_for))
        assert waits.gristmill and waits.gristmill.waiting_for == "The disk is full: free some space."
        batch = await end(host, batch.id)
        assert batch.status == "completed" and batch.gristmill and batch.gristmill.waiting_for is None
        assert [line["custom_id"] for line in await lines(host, batch.output_file_id)] == [
            f"row-{row}" for row in range(50)
        ]
        # Being tried again is not getting on: who watches for batches that stand still sees that it did from the start.
        assert quiet_since[0] == quiet_since[1] == quiet_since[2] and quiet_since[0]
        assert host.supervisor.last_result_at(batch.id) is None

    tell(tmp_path, story)


def test_a_lease_that_could_not_be_renewed_does_not_start_the_batch_a_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(100))
        await reach(host, batch.id, lambda seen: seen.request_counts.completed >= 1)
        ran_out = {"lease_until": 0}
        assert await host.storage.metadata.batches.change(batch.id, ran_out, expected="in_progress")
        host.supervisor.wake()
        batch = await end(host, batch.id)
        assert batch.request_counts.completed == 100
        journal = (tmp_path / "journal").read_text().split("\n")[:-1]
        assert len(journal) == len(set(journal)) == 100

    tell(tmp_path, story, latency=0.02, slots=4, journal=tmp_path / "journal")


def test_a_batch_that_ends_by_a_cancellation_that_nobody_asked_for_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "FAILURE_PAUSE", 0.1)

    async def story(host: BatchHost) -> None:
        rows: Any = host.storage.metadata.rows
        duplicates = rows.duplicates

        async def cut_off(*arguments: Any) -> Any:
            rows.duplicates = duplicates
            raise asyncio.CancelledError

        rows.duplicates = cut_off
        assert (await end(host, (await submit(host, chat_file(3))).id)).status == "completed"

    tell(tmp_path, story)


def test_a_stop_does_not_wait_for_a_lease_that_cannot_be_given_back(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batches: Any = host.storage.metadata.batches
        refused = asyncio.Event()

        async def refuse(*_: Any) -> None:
            refused.set()
            raise StorageError("The disk is full: free some space.")

        batches.release = refuse
        await submit(host, chat_file(3))
        await refused.wait()
        async with asyncio.timeout(supervising.RELEASE_PAUSE / 2):
            await host.supervisor.stop(0)

    tell(tmp_path, story)


def test_a_stop_does_not_wait_for_a_batch_that_gives_way_with_a_longer_grace(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(3))
        await reach(host, batch.id, lambda seen: bool(seen.gristmill and seen.gristmill.requests_in_flight))
        host.supervisor._active[batch.id].runner.stop.request(Why.LEAVING, 600)
        async with asyncio.timeout(10):
            await host.supervisor.stop(0)

    tell(tmp_path, story, latency=600)


def test_a_batch_that_is_forgotten_as_soon_as_it_has_ended_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(host: BatchHost) -> None:
        rows: Any = host.storage.metadata.rows
        clear, failures = rows.clear_ended, []

        async def clear_and_forget(batch_seq: int) -> None:
            await clear(batch_seq)
            await host.storage.metadata.batches.prune(2**40)

        monkeypatch.setattr(rows, "clear_ended", clear_and_forget)
        monkeypatch.setattr(supervising.log, "error", lambda message, **_: failures.append(message))
        first = await submit(host, chat_file(3))
        # The newest batch is never forgotten.
        await end(host, (await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h"))).id)
        while host.supervisor._active:
            await asyncio.sleep(0.01)
        assert await host.storage.metadata.batches.get(first.id) is None and failures == []

    tell(tmp_path, story)


@pytest.mark.parametrize("done", [False, True], ids=["being ended by another", "ended by another"])
def test_a_runner_that_lost_its_lease_cannot_end_the_batch(tmp_path: Path, done: bool) -> None:
    """Not with half of its answers, and not over the files that the other has written."""

    async def story(host: BatchHost) -> None:
        rows: Any = host.storage.metadata.rows
        taken_over = LEASE_TAKEOVERS._value.get()
        succeeded, reached, released = rows.succeeded, asyncio.Event(), asyncio.Event()

        async def held_up(*arguments: Any) -> Any:
            rows.succeeded = succeeded
            reached.set()
            await released.wait()
            return await succeeded(*arguments)

        rows.succeeded = held_up
        batch = await submit(host, chat_file(20))
        await reached.wait()
        owned = batches_table.c.id == batch.id
        taken = (
            update(batches_table)
            .where(owned)
            .values(lease_owner="another", lease_until=time.time() + 30, lease_generation=99)
        )
        lease = Lease(1, "another", 99)
        await rows._database.write(lambda connection: connection.execute(taken))
        record = await host.storage.metadata.batches.get(batch.id)
        assert record is not None and record.status == "finalizing"
        if done:
            other = storage_of(host.storage.metadata, host.storage.blobs)
            workplace = host.supervisor._workplace._replace(storage=other)
            await Runner(workplace, Claim(record, lease), Stage.ENDING).run()
        released.set()
        while host.supervisor._active:
            await asyncio.sleep(0.01)
        assert LEASE_TAKEOVERS._value.get() == taken_over + 1
        if not done:
            assert (await host.batches.get(batch.id)).status == "finalizing"
            await host.storage.metadata.batches.release(lease)
        ended = await end(host, batch.id)
        assert ended.status == "completed"
        assert len(await lines(host, ended.output_file_id)) == 20
        # The empty error file goes after the end.
        while host.supervisor._active:
            await asyncio.sleep(0.01)
        stored = [path for path in (tmp_path / "blobs" / "files").iterdir() if path.name != "file-1"]
        assert len(stored) == 1

    tell(tmp_path, story)


def test_leases_are_kept_while_what_is_in_flight_finishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.05)

    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(3))
        await reach(host, batch.id, lambda seen: bool(seen.gristmill and seen.gristmill.requests_in_flight))
        stopping = asyncio.create_task(host.supervisor.stop(60))
        batches: Any = host.storage.metadata.batches
        renew, renewed = batches.renew, asyncio.Event()

        async def watched(*arguments: Any) -> Any:
            renewed.set()
            return await renew(*arguments)

        await asyncio.sleep(0.1)
        batches.renew = watched
        await renewed.wait()
        assert not stopping.done()
        await stopping

    tell(tmp_path, story, latency=1.5)


def test_an_engine_that_is_away_is_waited_for_and_named(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, jsonl([chat_line("a", "hopeless")]))
        waiting = await reach(host, batch.id, lambda seen: bool(seen.gristmill and seen.gristmill.waiting_for))
        assert waiting.status == "in_progress"
        assert waiting.gristmill and waiting.gristmill.waiting_for == "A simulated failure (unavailable)."
        await host.batches.cancel(batch.id)
        assert (await end(host, batch.id)).status == "cancelled"

    tell(tmp_path, story, fail_on="hopeless", failure_kind="unavailable")


@pytest.mark.parametrize(
    ("kind", "code"), [("interrupted", "engine_error"), ("timeout", None), ("invalid_request", "simulated_failure")]
)
def test_rows_that_keep_failing_are_in_the_error_file_and_the_batch_completes(
    tmp_path: Path, kind: str, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.dispatch.retry.RetryPolicy.__new__.__defaults__", (4, 0.001, 0.002))

    async def story(host: BatchHost) -> None:
        batch = await submit(host, jsonl([chat_line("good"), chat_line("bad", "hopeless"), chat_line("fine")]))
        batch = await end(host, batch.id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 1)
        (error,) = await lines(host, batch.error_file_id)
        assert error["custom_id"] == "bad"
        if code is None:
            assert error["response"] is None and error["error"]["code"] == "request_timeout"
        else:
            assert error["error"] is None and error["response"]["body"]["error"]["code"] == code

    tell(tmp_path, story, fail_on="hopeless", failure_kind=kind)


def test_two_batches_share_the_engine_and_both_move(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        await add_file(host, chat_file(200))
        request = CreateBatchRequest("file-1", CHAT, "24h")
        first, second = await host.batches.create(request), await host.batches.create(request)
        await reach(host, second.id, lambda seen: seen.request_counts.completed >= 20)
        assert (await host.batches.get(first.id)).status == "in_progress"
        assert (await end(host, first.id)).request_counts.completed == 200
        assert (await end(host, second.id)).request_counts.completed == 200

    tell(tmp_path, story, latency=0.02, slots=4)


def test_a_file_with_too_many_rows_is_rejected_as_a_whole(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, chat_file(11))).id)
        assert batch.errors is not None
        assert [(error.code, error.line) for error in batch.errors.data] == [("maximum_requests_exceeded", None)]

    tell(tmp_path, story, limits=Limits(max_rows=10))


def test_an_ended_batch_leaves_no_rows_in_the_database(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, chat_file(30))).id)
        record = await host.storage.metadata.batches.get(batch.id)
        assert record is not None
        # They go right after the end.
        while await host.storage.metadata.rows.succeeded(record.seq, 0, 10):
            await asyncio.sleep(0.01)
        assert await host.storage.metadata.rows.not_succeeded(record.seq, 0, 10) == []

    tell(tmp_path, story)
