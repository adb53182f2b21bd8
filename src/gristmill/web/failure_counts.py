"""Why the rows of some batches failed, counted beside the pages that tell it.

A page waits for a moment at most, and all pages together take no more than a small share of the time from what runs.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from gristmill.batches.results.reader import ResultsGone
from gristmill.batches.results.tally import Tally
from gristmill.telemetry.log import get_logger
from gristmill.wire.batch import Batch

log = get_logger(__name__)

#: What one look may take, at all batches whose turn it is. After so long it goes on where it has not come to the end,
#: and a batch that has more failed rows by now is looked at again.
COUNT_SECONDS, GO_ON_SECONDS, AGAIN_SECONDS = 0.02, 0.9, 10.0
_WAIT_SECONDS = 0.05
_KEPT = 200


#: Goes on with the count of a batch, for so many seconds; None where there is no such batch any more.
Count = Callable[[str, float], Awaitable[Tally | None]]


class _Count(NamedTuple):
    """``failed`` rows the batch had when it was looked at, at ``at`` (monotonic)."""

    tally: Tally
    failed: int
    at: float


class FailureCounts:
    """What has been counted of the batches that were looked at last."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._rests_until = float("-inf")

    async def look(self, batches: Sequence[Batch], count: Count) -> dict[str, Tally]:
        """By batch, what is known by now; nothing of a batch that has not been counted yet. ``count`` goes on with it,
        for as many seconds as it is given: with one batch at a time, whoever asks."""
        due = [batch for batch in batches if self._is_due(batch)]
        never_looked_at = any(batch.id not in self._counts for batch in due)
        if self._task is None and due and (never_looked_at or time.monotonic() >= self._rests_until):
            self._task = asyncio.create_task(self._count_all(due, count))
            self._task.add_done_callback(self._ended)
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_WAIT_SECONDS)
        return {batch.id: self._counts[batch.id].tally for batch in batches if batch.id in self._counts}

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._task, self._rests_until = None, time.monotonic() + GO_ON_SECONDS

    def _is_due(self, batch: Batch) -> bool:
        known = self._counts.get(batch.id)
        if known is None:
            return True
        waited = time.monotonic() - known.at
        if not known.tally.whole:
            return waited >= GO_ON_SECONDS
        return known.failed != batch.request_counts.failed and waited >= AGAIN_SECONDS

    async def _count_all(self, batches: Sequence[Batch], count: Count) -> None:
        """Those first that were looked at longest ago; what there is no time for has its turn at the next look."""
        until = time.monotonic() + COUNT_SECONDS
        for batch in sorted(batches, key=lambda each: self._looked_at(each.id)):
            left = until - time.monotonic()
            if left <= 0:
                return
            await self._count(batch, count, left)

    def _looked_at(self, batch_id: str) -> float:
        known = self._counts.get(batch_id)
        return known.at if known is not None else float("-inf")

    async def _count(self, batch: Batch, count: Count, seconds: float) -> None:
        try:
            tally = await count(batch.id, seconds)
        except ResultsGone:
            tally = Tally(whole=True)
        except Exception as error:
            log.warning("failed rows cannot be counted", batch=batch.id, exc_info=error)
            tally = Tally()
        if tally is None:
            return
        self._counts[batch.id] = _Count(tally, batch.request_counts.failed, time.monotonic())
        self._counts.move_to_end(batch.id)
        while len(self._counts) > _KEPT:
            self._counts.popitem(last=False)
