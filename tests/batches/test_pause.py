"""Pausing, resuming and giving another priority, at any moment of a batch's life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from test_places import fill_places
from test_supervisor import add_file, end, lines, reach, submit, tell

from gristmill.batches import runner
from gristmill.batches.host import BatchHost
from gristmill.batches.measured import measured_batches
from gristmill.batches.places import PLACES
from gristmill.storage.records import Stage
from gristmill.wire.batch import Batch, CreateBatchRequest
from gristmill.wire.errors import ApiError
from requests_jsonl import CHAT, chat_file

ROWS = 300


def rests(batch: Batch) -> bool:
    return bool(batch.gristmill and batch.gristmill.paused_at and batch.gristmill.waiting_for == "paused")


def waits_for_its_turn(batch: Batch) -> bool:
    return bool(batch.gristmill and "Its turn" in (batch.gristmill.waiting_for or ""))


async def left(host: BatchHost) -> None:
    """Until nobody holds a batch, and what was being stored is stored."""
    while host.supervisor._tasks:
        await asyncio.sleep(0.005)


async def refused(call: Awaitable[Batch], says: str) -> None:
    with pytest.raises(ApiError, match=says) as refusal:
        await call
    assert refusal.value.status == 409 and refusal.value.retry is False


async def judge(host: BatchHost, batch: Batch, rows: int = ROWS) -> None:
    output, errors = await lines(host, batch.output_file_id), await lines(host, batch.error_file_id)
    assert sorted(line["custom_id"] for line in output + errors) == sorted(f"row-{row}" for row in range(rows))
    assert len(output) == batch.request_counts.completed
    assert batch.gristmill and batch.gristmill.paused_at is None and batch.gristmill.waiting_for is None


@pytest.mark.parametrize("after", [0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2])
def test_a_batch_paused_at_any_moment_rests_goes_on_when_it_is_told_and_loses_nothing(
    tmp_path: Path, after: float
) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(ROWS))
        await asyncio.sleep(after)
        paused = await host.batches.pause(batch.id)
        assert rests(paused) and paused.status in ("validating", "in_progress")
        again = await host.batches.pause(batch.id)
        assert again.gristmill and paused.gristmill and again.gristmill.paused_at == paused.gristmill.paused_at
        await left(host)
        before = await host.batches.get(batch.id)
        # Others run, and it does not.
        await add_file(host, chat_file(3), "file-other")
        await end(host, (await host.batches.create(CreateBatchRequest("file-other", CHAT, "24h"))).id)
        resting = await host.batches.get(batch.id)
        assert rests(resting) and resting.request_counts == before.request_counts
        assert resting.status == before.status and host.dispatcher.in_flight == 0
        assert resting.expires_at == batch.expires_at
        resumed = await host.batches.resume(batch.id)
        assert resumed.gristmill and resumed.gristmill.paused_at is None
        batch = await end(host, batch.id)
        assert (batch.status, batch.request_counts.completed) == ("completed", ROWS)
        await judge(host, batch)

    tell(tmp_path, story, latency=0.05, slots=8)


def test_what_is_in_flight_when_a_batch_is_paused_is_finished_and_stored(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(20))
        await reach(host, batch.id, lambda seen: host.dispatcher.in_flight == 4)
        done = (await host.batches.pause(batch.id)).request_counts.completed
        await left(host)
        assert (await host.batches.get(batch.id)).request_counts.completed == done + 4

    tell(tmp_path, story, latency=0.5, slots=4)


def test_what_takes_longer_than_the_grace_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "PAUSE_GRACE", 0.05)

    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(3))
        await reach(host, batch.id, lambda seen: host.dispatcher.in_flight == 3)
        await host.batches.pause(batch.id)
        await left(host)
        assert (await host.batches.get(batch.id)).request_counts.completed == 0
        await host.batches.resume(batch.id)
        await judge(host, await end(host, batch.id), 3)

    tell(tmp_path, story, latency=1, slots=4)


def test_a_paused_batch_survives_a_restart_and_is_cancelled_or_expires_where_it_rests(tmp_path: Path) -> None:
    made: list[str] = []

    async def first(host: BatchHost) -> None:
        batch = await submit(host, chat_file(ROWS))
        made.append(batch.id)
        for _ in range(2):
            made.append((await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h"))).id)
        for batch_id in made:
            await reach(host, batch_id, lambda seen: seen.request_counts.completed >= 10)
            await host.batches.pause(batch_id)

    async def second(host: BatchHost) -> None:
        resumed, cancelled, expired = made
        assert all([rests(await host.batches.get(batch_id)) for batch_id in made])
        assert not host.supervisor._active
        assert (await host.batches.cancel(cancelled)).status in ("cancelling", "cancelled")
        past = {"expires_at": int(time.time()) - 1}
        assert await host.storage.metadata.batches.change(expired, past, expected="in_progress")
        for batch_id, status in ((cancelled, "cancelled"), (expired, "expired")):
            batch = await end(host, batch_id)
            assert batch.status == status and batch.request_counts.completed >= 10
            await judge(host, batch)
        assert rests(await host.batches.get(resumed))
        await host.batches.resume(resumed)
        assert (await end(host, resumed)).status == "completed"

    tell(tmp_path, first, latency=0.05, slots=8)
    tell(tmp_path, second, latency=0.001, slots=8)


def test_a_paused_batch_gives_its_place_to_one_that_waits_and_waits_for_its_turn_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLACES, Stage.EXECUTION, 1)

    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(ROWS))
        await reach(host, batch.id, lambda seen: seen.request_counts.completed >= 1)
        other = await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h"))
        await reach(
            host, other.id, lambda seen: bool(seen.gristmill and "Its turn" in (seen.gristmill.waiting_for or ""))
        )
        await host.batches.pause(batch.id)
        await reach(host, other.id, lambda seen: seen.request_counts.completed >= 1)
        resumed = await host.batches.resume(batch.id)
        assert waits_for_its_turn(resumed)
        # Of those that wait and those that run, the one with the highest priority has the place.
        await host.batches.set_priority(batch.id, 1)
        await end(host, batch.id)
        assert (await host.batches.get(other.id)).status == "in_progress"
        assert (await end(host, other.id)).request_counts.completed == ROWS

    tell(tmp_path, story, latency=0.02, slots=8)


def test_a_paused_batch_is_not_watched_for_results(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(ROWS))
        await reach(host, batch.id, lambda seen: seen.request_counts.completed >= 1)
        await host.batches.pause(batch.id)
        await left(host)
        # It waited to be tried again when it was paused.
        host.supervisor._quiet_since[batch.id] = 1.0
        (told,) = (await measured_batches(host.storage, host.supervisor))._unfinished
        assert told.last_result_at is None and told.rows_remaining and told.eta is None
        await host.batches.resume(batch.id)
        (told,) = (await measured_batches(host.storage, host.supervisor))._unfinished
        assert told.last_result_at is not None

    tell(tmp_path, story, latency=0.05, slots=8)


def test_a_batch_that_has_no_rows_to_run_is_not_paused_resumed_or_moved(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(3))
        await end(host, batch.id)
        await refused(host.batches.pause(batch.id), "Cannot pause a batch with status 'completed'")
        await refused(host.batches.resume(batch.id), "Cannot resume a batch with status 'completed'")
        await refused(host.batches.set_priority(batch.id, 1), "Cannot change the priority of a batch with status")
        assert (await host.batches.get(batch.id)).status == "completed"

    tell(tmp_path, story)


def test_a_pause_that_comes_between_reading_and_writing_a_status_is_not_missed(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batches: Any = host.storage.metadata.batches
        get, paused = batches.get, asyncio.Event()

        async def slow_get(batch_id: str) -> Any:
            record = await get(batch_id)
            if record.status == "in_progress" and not paused.is_set():
                # The runner has read a batch that is not paused; before it goes on, it is.
                paused.set()
                await batches.change(batch_id, {"paused_at": 1}, expected="in_progress")
            return record

        batches.get = slow_get
        batch = await submit(host, chat_file(2_000))
        await reach(host, batch.id, rests)
        await left(host)
        assert (await host.batches.get(batch.id)).request_counts.completed < 2_000

    tell(tmp_path, story, latency=0.05, slots=8)


def test_another_priority_takes_effect_at_once_where_a_batch_waits_and_where_it_runs(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        running = await fill_places(host)
        waiting = await host.batches.create(CreateBatchRequest("file-short", CHAT, "24h"))
        await reach(host, waiting.id, lambda seen: seen.status == "in_progress")
        moved = await host.batches.set_priority(waiting.id, 3)
        assert moved.gristmill and moved.gristmill.priority == 3
        assert (await end(host, waiting.id)).status == "completed"
        execution = await _executing(host, running[0].id)
        share = execution().flow.weight
        await host.batches.set_priority(running[0].id, 2)
        assert execution().flow.weight == 4 * share
        assert host.supervisor._active[running[0].id].runner.batch.priority == 2

    tell(tmp_path, story, latency=0.05, slots=8)


async def _executing(host: BatchHost, batch_id: str) -> Callable[[], Any]:
    def execution() -> Any:
        active = host.supervisor._active.get(batch_id)
        return None if active is None else active.runner._execution

    while execution() is None:
        await asyncio.sleep(0.005)
    return execution
