"""Counts over all results of a batch: why rows failed, and how label scores are spread.

A batch may have millions of rows, so the counting goes on a little at each look, and says how far it has come.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec

from gristmill.batches import lifecycle
from gristmill.batches.results.causes import Cause, cause_of
from gristmill.batches.results.reader import PlacedRow, ResultsReader, Wanted
from gristmill.storage.records import BatchRecord
from gristmill.storage.row_records import RowOutcome

_PAGE_ROWS = 1_000
_EXAMPLES = 3
#: Causes told apart; an engine that writes something else every time has no more groups than that.
_MOST_CAUSES = 200
#: Batches whose counts are remembered, the last looked at.
_REMEMBERED = 64
BINS = 20


class CauseCount(msgspec.Struct):
    cause: Cause
    count: int
    examples: list[PlacedRow]


class LabelSpread(msgspec.Struct):
    """Over ``items`` scored items: ``chosen`` counts the items whose most probable label each is, ``mass`` sums the
    labels' probabilities. ``certainty`` counts items by the probability of their most probable label, in ``BINS`` steps
    from 0 to 1."""

    items: int
    chosen: list[int]
    mass: list[float]
    certainty: list[int]


class Tally(msgspec.Struct):
    """``counted`` rows of those with the outcome; ``whole``: that were all there were."""

    counted: int = 0
    whole: bool = False
    causes: dict[str, CauseCount] = {}
    spread: LabelSpread | None = None


class _Count:
    """One pass over the rows of one outcome."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._from: str | None = None

    async def go_on(
        self, reader: ResultsReader, batch: BatchRecord, outcome: RowOutcome, take: Callable[[Tally, PlacedRow], None],
        until: float,
    ) -> None:  # fmt: skip
        while not self.tally.whole:
            page = await reader.page(batch, Wanted(outcome=outcome), self._from, _PAGE_ROWS)
            for row in page.rows:
                take(self.tally, row)
            self.tally.counted += len(page.rows)
            self._from, self.tally.whole = page.more, page.more is None
            if time.monotonic() >= until:
                return


class ResultTallies:
    """Remembers the counts of the batches that were looked at last."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[object, ...], _Count] = OrderedDict()

    async def causes(self, reader: ResultsReader, batch: BatchRecord, seconds: float) -> Tally:
        """Of the rows that failed. Raises ResultsGone."""
        return await self._look(reader, batch, "failed", _take_cause, seconds)

    async def spread(self, reader: ResultsReader, batch: BatchRecord, seconds: float) -> Tally:
        """Of a batch of label scores. Raises ResultsGone."""
        return await self._look(reader, batch, "succeeded", _take_scores, seconds)

    async def _look(
        self, reader: ResultsReader, batch: BatchRecord, outcome: RowOutcome,
        take: Callable[[Tally, PlacedRow], None], seconds: float,
    ) -> Tally:  # fmt: skip
        # Rows that come while a batch runs may stand before those that were counted: then it is counted anew.
        stands = lifecycle.is_terminal(batch.status)
        now = None if stands else (batch.completed if outcome == "succeeded" else batch.failed)
        name = (batch.id, outcome, stands)
        known, count = self._counts.get((*name, "whole")), self._counts.get((*name, "under way"))
        at = known.tally.counted if known is not None else -1
        if known is not None and (stands or at == now):
            return known.tally
        if count is None:
            count = self._remember((*name, "under way"), _Count())
        await count.go_on(reader, batch, outcome, take, time.monotonic() + seconds)
        if not count.tally.whole:
            # What was counted to the end tells more, though it is older.
            return known.tally if known is not None else count.tally
        self._counts.pop((*name, "under way"), None)
        return self._remember((*name, "whole"), count).tally

    def _remember(self, name: tuple[object, ...], count: _Count) -> _Count:
        self._counts[name] = count
        self._counts.move_to_end(name)
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
        return count


def _take_cause(tally: Tally, row: PlacedRow) -> None:
    if row.view.error is None:
        return
    cause = cause_of(row.view.error)
    known = tally.causes.get(cause.key)
    if known is None:
        if len(tally.causes) >= _MOST_CAUSES:
            return
        known = tally.causes[cause.key] = CauseCount(cause, 0, [])
    known.count += 1
    if len(known.examples) < _EXAMPLES:
        known.examples.append(row)


def _take_scores(tally: Tally, row: PlacedRow) -> None:
    for item in row.view.probabilities or ():
        if not item:
            continue
        if tally.spread is None:
            tally.spread = LabelSpread(0, [0] * len(item), [0.0] * len(item), [0] * BINS)
        spread = tally.spread
        if len(item) != len(spread.mass):
            # Rows that have labels of their own cannot be added up.
            continue
        add_scores(spread, item)


def add_scores(spread: LabelSpread, item: Sequence[float]) -> None:
    best = max(range(len(item)), key=item.__getitem__)
    spread.items += 1
    spread.chosen[best] += 1
    spread.certainty[min(max(int(item[best] * BINS), 0), BINS - 1)] += 1
    for place, share in enumerate(item):
        spread.mass[place] += share
