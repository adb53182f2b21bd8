"""More batches than places: who runs, who waits, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from test_supervisor import add_file, end, reach, tell

from gristmill.batches import lifecycle, places
from gristmill.batches.host import BatchHost
from gristmill.batches.places import PLACES, TURN_SECONDS, HeldPlace, who_gives_way
from gristmill.storage.records import BatchRecord, Stage
from gristmill.storage.sql.store import SqlMetadataStore
from gristmill.wire.batch import Batch, CreateBatchRequest
from requests_jsonl import CHAT, chat_file

#: Enough to hold every place to execute in for the length of a test.
LONG = 2_000


async def fill_places(host: BatchHost) -> list[Batch]:
    await add_file(host, chat_file(LONG), "file-long")
    await add_file(host, chat_file(3), "file-short")
    request = CreateBatchRequest("file-long", CHAT, "24h")
    batches = [await host.batches.create(request) for _ in range(PLACES[Stage.EXECUTION])]
    for batch in batches:
        await reach(host, batch.id, lambda seen: seen.status == "in_progress" and seen.gristmill is not None)
    return batches


def test_a_batch_with_a_higher_priority_does_not_wait_for_those_that_run(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        running = await fill_places(host)
        urgent = await host.batches.create(CreateBatchRequest("file-short", CHAT, "24h", priority=5))
        assert (await end(host, urgent.id)).status == "completed"
        for batch in running:
            assert (await host.batches.get(batch.id)).status == "in_progress"

    tell(tmp_path, story, latency=0.05, slots=8)


def test_a_batch_that_waits_is_validated_says_why_it_waits_expires_and_is_cancelled_at_once(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        await fill_places(host)
        short = CreateBatchRequest("file-short", CHAT, "24h")
        expiring, cancelled, wrong = (
            await host.batches.create(short),
            await host.batches.create(short),
            await host.batches.create(CreateBatchRequest("file-none", CHAT, "24h")),
        )
        assert (await end(host, wrong.id)).status == "failed"
        for batch in expiring, cancelled:
            seen = await reach(host, batch.id, lambda seen: bool(seen.gristmill and seen.gristmill.waiting_for))
            assert seen.status == "in_progress" and seen.gristmill
            assert seen.gristmill.waiting_for == (
                "Its turn: 16 batches run at a time, those with a higher priority first."
            )
        past = {"expires_at": int(time.time()) - 1}
        assert await host.storage.metadata.batches.change(expiring.id, past, expected="in_progress")
        await host.batches.cancel(cancelled.id)
        assert (await end(host, cancelled.id)).status == "cancelled"
        ended = await end(host, expiring.id)
        assert (ended.status, ended.request_counts.completed, ended.request_counts.total) == ("expired", 0, 3)

    tell(tmp_path, story, latency=0.05, slots=8)


def test_a_batch_of_the_same_priority_gets_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "TURN_SECONDS", 0.5)

    async def story(host: BatchHost) -> None:
        await fill_places(host)
        waiting = await host.batches.create(CreateBatchRequest("file-short", CHAT, "24h"))
        assert (await end(host, waiting.id)).status == "completed"

    tell(tmp_path, story, latency=0.05, slots=8)


def held(batch_id: str, priority: int = 0, seconds: float = 0, leaving: bool = False) -> HeldPlace:
    return HeldPlace(batch_id, Stage.EXECUTION, priority, seconds, leaving)


def test_who_gives_way() -> None:
    two = [held("a", 0, 10), held("b", 0, 20)]
    assert who_gives_way(two, 1) == "b"
    assert who_gives_way(two, 0) is None
    assert who_gives_way([held("a", 0, TURN_SECONDS), *two], 0) == "a"
    assert who_gives_way([held("a", 1, TURN_SECONDS), held("b", 2, 2 * TURN_SECONDS)], 0) is None
    assert who_gives_way([held("a", -5), held("b", 5)], 0) == "a"
    # One at a time.
    assert who_gives_way([*two, held("c", 0, 1, leaving=True)], 5) is None
    assert who_gives_way([], 5) is None


STATUSES = ["validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "expired", "cancelled"]


def test_storage_and_lifecycle_agree_on_where_a_batch_stands(tmp_path: Path) -> None:
    records = [
        BatchRecord(
            0, f"batch_{status}_{expires_at}_{failed}_{paused_at}", CHAT, "file-1", "24h", status, 1, expires_at,
            total=3, completed=2, failed=failed, paused_at=paused_at,
        )
        for status in STATUSES for expires_at in (5, 10, 11) for failed in (0, 1) for paused_at in (None, 4)
    ]  # fmt: skip

    async def main() -> None:
        store = SqlMetadataStore.at(f"sqlite:///{tmp_path / 'test.db'}")
        await store.start()
        try:
            for record in records:
                await store.batches.add(record)
            for stage in Stage:
                steps = [(record.id, lifecycle.next_step(record, 10)) for record in records]
                at_stage = [batch_id for batch_id, step in steps if step is not None and step.stage is stage]
                claimed = []
                while (first := await store.batches.next_in_line(10, stage)) is not None:
                    claim = await store.batches.claim("me", 10, 60, stage)
                    assert claim is not None and claim.batch == first
                    claimed.append(first.id)
                assert claimed == at_stage
        finally:
            await store.stop()

    asyncio.run(main())
