"""A stop, a cancel or the end of a window is never missed, whatever the batch is at."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from test_supervisor import add_file, end, lines, reach, submit, tell

from gristmill.batches.host import BatchHost
from gristmill.dispatch.stop import Stop, Stopped, Why
from gristmill.wire.batch import CreateBatchRequest
from requests_jsonl import CHAT, chat_file


def asked(journal: Path) -> int:
    return len(journal.read_text().splitlines()) if journal.exists() else 0


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 4, 6, 8, 10, 12, 15, 20, 30])
def test_a_server_that_is_stopped_asks_for_nothing_more_whatever_the_batch_is_at(
    tmp_path: Path, milliseconds: int
) -> None:
    journal = tmp_path / "journal"

    async def story(host: BatchHost) -> None:
        await submit(host, chat_file(200))
        await asyncio.sleep(milliseconds / 1000)
        await host.supervisor.stop(0.05)
        before = asked(journal)
        await asyncio.sleep(0.2)
        assert asked(journal) == before <= 16

    # 200 rows take 2.5 seconds.
    tell(tmp_path / "data", story, latency=0.05, slots=4, journal=journal)


def test_a_cancel_while_the_engine_is_asked_for_its_weights_runs_no_row(tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    async def story(host: BatchHost) -> None:
        engine: Any = host.dispatcher.engine
        fingerprint, calls, asking = engine.fingerprint, 0, asyncio.Event()

        async def slow() -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                # The first is for validation, the second for running.
                asking.set()
                await asyncio.sleep(0.3)
            return await fingerprint()

        engine.fingerprint = slow
        await add_file(host, chat_file(80))
        batch = await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h", reuse_answers=True))
        await asking.wait()
        await host.batches.cancel(batch.id)
        batch = await end(host, batch.id)
        assert (batch.status, batch.request_counts.completed) == ("cancelled", 0)
        assert len(await lines(host, batch.error_file_id)) == 80

    tell(tmp_path / "data", story, journal=journal)
    assert asked(journal) == 0


def test_a_cancel_that_nobody_was_told_of_is_seen_in_the_stored_status(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(400))
        await reach(host, batch.id, lambda seen: seen.request_counts.completed > 0)
        # As if the request that cancels were cut off between its two steps.
        changes = {"status": "cancelling", "cancelling_at": 1}
        assert await host.storage.metadata.batches.change(batch.id, changes, expected="in_progress")
        batch = await end(host, batch.id)
        assert batch.status == "cancelled" and batch.request_counts.completed < 400

    tell(tmp_path, story, latency=0.05, slots=4)


def test_a_stop_does_not_wait_for_the_planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(*args: Any, **options: Any) -> asyncio.subprocess.Process:
        """A process that never answers."""
        return await start("sleep", "600", **options)

    start = asyncio.create_subprocess_exec
    monkeypatch.setattr("asyncio.create_subprocess_exec", stuck)

    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(20_000))
        await asyncio.sleep(0.3)
        assert (await host.batches.get(batch.id)).status == "validating"
        async with asyncio.timeout(10):
            await host.supervisor.stop(0)

    tell(tmp_path, story)


def test_a_batch_whose_window_ends_while_it_is_validated_expires_with_every_line_in_a_file(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        await add_file(host, chat_file(300))
        await host.supervisor.stop(0)
        batch = await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h"))
        past = {"expires_at": int(time.time()) - 1}
        await host.storage.metadata.batches.change(batch.id, past, expected="validating")
        again = type(host.supervisor)(
            host.storage, host.dispatcher, host.supervisor._workplace.answers, tmp_path / "scratch"
        )
        running = asyncio.create_task(again.run())
        batch = await end(host, batch.id)
        await again.stop(0)
        running.cancel()
        assert batch.status == "expired" and batch.expired_at and batch.in_progress_at is None
        assert batch.request_counts.total == 300
        errors = await lines(host, batch.error_file_id)
        assert [line["error"]["code"] for line in errors] == ["batch_expired"] * 300

    tell(tmp_path, story)


def test_a_batch_that_is_cancelled_while_its_window_ends_is_cancelled_and_knows_its_rows(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        await add_file(host, chat_file(30))
        await host.supervisor.stop(0)
        batches: Any = host.storage.metadata.batches
        batch = await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h"))
        await batches.change(batch.id, {"expires_at": int(time.time()) - 1}, expected="validating")
        change = batches.change

        async def cancelled_before(batch_id: str, changes: dict[str, Any], **options: Any) -> bool:
            if "total" in changes and options["expected"] == "validating":
                await change(batch_id, {"status": "cancelling", "cancelling_at": 1}, expected="validating")
            return bool(await change(batch_id, changes, **options))

        batches.change = cancelled_before
        again = type(host.supervisor)(
            host.storage, host.dispatcher, host.supervisor._workplace.answers, tmp_path / "scratch"
        )
        running = asyncio.create_task(again.run())
        batch = await end(host, batch.id)
        await again.stop(0)
        running.cancel()
        assert (batch.status, batch.request_counts.total) == ("cancelled", 30)
        errors = await lines(host, batch.error_file_id)
        assert [line["error"]["code"] for line in errors] == ["batch_cancelled"] * 30

    tell(tmp_path, story)


async def test_a_step_gives_way_to_a_stop_and_has_ended_when_it_is_told() -> None:
    stop, ended = Stop(), []

    async def step() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0)
            ended.append("step")

    waiting = asyncio.create_task(stop.unless(step()))
    await asyncio.sleep(0)
    stop.request(Why.CANCELLED, 600)
    with pytest.raises(Stopped):
        await waiting
    assert ended == ["step"]
    # What ends the batch gives way only to leaving it.
    assert await stop.unless(asyncio.sleep(0, "written"), only_leaving=True) == "written"
    stop.request(Why.LEAVING, 0)
    with pytest.raises(Stopped):
        await stop.unless(asyncio.sleep(0), only_leaving=True)
    assert stop.why is Why.LEAVING


async def test_of_several_grace_periods_the_one_that_ends_first_counts() -> None:
    stop = Stop()
    stop.request(Why.CANCELLED, 600)
    stop.request(Why.LEAVING, 0.01)
    stop.request(Why.CANCELLED, 600)
    async with asyncio.timeout(10):
        await stop.wait_overdue()


async def test_a_step_that_fails_while_it_gives_way_says_so() -> None:
    stop = Stop()

    async def step() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            raise OSError("the disk is gone")

    waiting = asyncio.create_task(stop.unless(step()))
    await asyncio.sleep(0)
    stop.request(Why.LEAVING, 0)
    with pytest.raises(OSError, match="the disk is gone"):
        await waiting
