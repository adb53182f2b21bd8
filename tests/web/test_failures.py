"""Why rows failed: counted beside the pages, the same cause of several batches told once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gristmill.batches.results.causes import Cause
from gristmill.batches.results.reader import PlacedRow
from gristmill.batches.results.row_view import RowView
from gristmill.batches.results.tally import CauseCount, Tally
from gristmill.web import failure_counts
from gristmill.web.failure_counts import FailureCounts
from gristmill.web.failures import merged
from gristmill.wire.batch import Batch, RequestCounts


def a_batch(failed: int, name: str = "batch_1") -> Batch:
    counts = RequestCounts(100, 0, failed)
    return Batch(name, "/v1/chat/completions", "file-1", "24h", "in_progress", 1, request_counts=counts)


def a_tally(whole: bool = True, **causes: int) -> Tally:
    groups = {
        name: CauseCount(Cause(name, 400, "code", f"because {name}"), count, []) for name, count in causes.items()
    }
    return Tally(sum(causes.values()), whole, groups)


async def test_a_page_does_not_wait_for_a_count_and_the_next_one_has_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(failure_counts, "_WAIT_SECONDS", 0.001)
    counts, counted, begun = FailureCounts(), asyncio.Event(), 0

    async def count(batch_id: str, seconds: float) -> Tally:
        nonlocal begun
        begun += 1
        await counted.wait()
        return a_tally(x=3)

    assert await counts.look([a_batch(3)], count) == {}
    assert await counts.look([a_batch(3)], count) == {}
    assert begun == 1
    counted.set()
    async with asyncio.timeout(20):
        while not (found := await counts.look([a_batch(3)], count)):
            await asyncio.sleep(0)
    assert found == {"batch_1": a_tally(x=3)}
    assert begun == 1


async def test_a_batch_is_counted_again_only_when_more_has_failed_and_not_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(failure_counts, "GO_ON_SECONDS", 0)
    counts, begun = FailureCounts(), 0

    async def count(batch_id: str, seconds: float) -> Tally:
        nonlocal begun
        begun += 1
        return a_tally(x=begun)

    await counts.look([a_batch(1)], count)
    await counts.look([a_batch(2)], count)
    assert begun == 1
    monkeypatch.setattr(failure_counts, "AGAIN_SECONDS", 0)
    await counts.look([a_batch(1)], count)
    assert begun == 1
    assert await counts.look([a_batch(2)], count) == {"batch_1": a_tally(x=2)}


async def test_all_batches_share_the_time_of_a_look_and_those_that_had_none_are_next(monkeypatch: pytest.MonkeyPatch):
    """Or each batch whose failures are many would take as much from what runs as one."""
    monkeypatch.setattr(failure_counts, "GO_ON_SECONDS", 0)
    monkeypatch.setattr(failure_counts, "COUNT_SECONDS", 10.0)
    clock, looked = 0.0, list[tuple[str, float]]()
    monkeypatch.setattr(failure_counts, "time", SimpleNamespace(monotonic=lambda: clock))
    counts, batches = FailureCounts(), [a_batch(9, f"batch_{number}") for number in range(5)]

    async def count(batch_id: str, seconds: float) -> Tally:
        nonlocal clock
        looked.append((batch_id, seconds))
        clock += 4.0
        return a_tally(False, x=1)

    assert set(await counts.look(batches, count)) == {"batch_0", "batch_1", "batch_2"}
    assert looked == [("batch_0", 10.0), ("batch_1", 6.0), ("batch_2", 2.0)]
    assert len(await counts.look(batches, count)) == 5
    assert [batch_id for batch_id, _ in looked[3:]] == ["batch_3", "batch_4", "batch_0"]


async def test_pages_of_different_batches_count_one_after_another(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(failure_counts, "_WAIT_SECONDS", 0.001)
    counts, free, begun = FailureCounts(), asyncio.Event(), list[str]()

    async def count(batch_id: str, seconds: float) -> Tally:
        begun.append(batch_id)
        await free.wait()
        return a_tally(False, x=1)

    for name in ("batch_1", "batch_2"):
        assert await counts.look([a_batch(3, name)], count) == {}
    assert begun == ["batch_1"]
    free.set()
    async with asyncio.timeout(20):
        while not await counts.look([a_batch(3, "batch_2")], count):
            await asyncio.sleep(0)
    # Both are known now: who looks again at once is told what is known.
    monkeypatch.setattr(failure_counts, "GO_ON_SECONDS", 0)
    await counts.look([a_batch(4, "batch_1"), a_batch(4, "batch_2")], count)
    assert begun == ["batch_1", "batch_2"]


async def test_a_count_that_fails_is_no_failure_of_the_page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(failure_counts, "GO_ON_SECONDS", 0)
    counts, begun = FailureCounts(), 0

    async def count(batch_id: str, seconds: float) -> Tally | None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise OSError("no such file")
        return a_tally(x=1) if begun == 3 else None

    assert await counts.look([a_batch(1)], count) == {"batch_1": Tally()}
    assert await counts.look([a_batch(1)], count) == {"batch_1": Tally()}
    assert await counts.look([a_batch(1)], count) == {"batch_1": a_tally(x=1)}


def test_the_same_cause_of_several_batches_is_one_and_leads_to_where_most_are():
    row = PlacedRow("l7", RowView("row-7", "failed", 7))
    first, second = a_tally(x=2, y=9), a_tally(False, x=5)
    second.causes["x"].examples.append(row)
    found = merged({"batch_1": first, "batch_2": second}, failed=20)
    assert [(each.rows, each.title) for each in found.causes] == [(9, "because y"), (7, "because x")]
    assert found.causes[1].address == "/batches/batch_2/results?outcome=failed&cause=x"
    assert [example.address for example in found.causes[1].examples] == ["/batches/batch_2/rows/l7"]
    assert (found.counted, found.failed) == (16, 20)
