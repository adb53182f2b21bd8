"""Why the rows of some batches failed, counted beside the pages that tell it: a page waits for a moment at most."""

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

#: What one look at a batch may take. After so long it goes on where it has not come to the end, and a batch that has
#: more failed rows by now is looked at again.
COUNT_SECONDS, GO_ON_SECONDS, AGAIN_SECONDS = 0.05, 0.9, 10.0
_WAIT_SECONDS = 0.05
_KEPT = 200


class _Count(NamedTuple):
    """``failed`` rows the batch had when it was looked at, at ``at`` (monotonic)."""

    tally: Tally
    failed: int
    at: float


class FailureCounts:
    """What has been counted of the batches that were looked at last."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def look(self, batches: Sequence[Batch], count: Callable[[str], Awaitable[Tally | None]]) -> dict[str, Tally]:
        """By batch, what is known by now; nothing of a batch that has not been counted yet. ``count`` goes on with it,
        once at a time for each batch."""
        for batch in batches:
            if batch.id not in self._tasks and self._is_due(batch):
                task = asyncio.create_task(self._count(batch, count))
                self._tasks[batch.id] = task
                task.add_done_callback(lambda _, batch_id=batch.id: self._tasks.pop(batch_id, None))  # type: ignore[misc]
        running = [self._tasks[batch.id] for batch in batches if batch.id in self._tasks]
        if running:
            await asyncio.wait(running, timeout=_WAIT_SECONDS)
        return {batch.id: self._counts[batch.id].tally for batch in batches if batch.id in self._counts}

    def _is_due(self, batch: Batch) -> bool:
        known = self._counts.get(batch.id)
        if known is None:
            return True
        waited = time.monotonic() - known.at
        if not known.tally.whole:
            return waited >= GO_ON_SECONDS
        return known.failed != batch.request_counts.failed and waited >= AGAIN_SECONDS

    async def _count(self, batch: Batch, count: Callable[[str], Awaitable[Tally | None]]) -> None:
        try:
            tally = await count(batch.id)
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
