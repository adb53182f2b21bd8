"""Why rows failed, of one batch or of several, with some of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fastapi import Request

from gristmill.batches.results.reader import ResultsReader
from gristmill.batches.results.tally import Tally
from gristmill.html_page import one_line
from gristmill.web.visitor import dashboard, host
from gristmill.wire.batch import Batch

#: Causes that are listed, rows named with each, and batches that are looked at on a page of several.
_LISTED, _EXAMPLES, _BATCHES = 8, 3, 6
#: Of a thread, at a time.
_READ_SECONDS = 0.03


class FailedRow(NamedTuple):
    """``address`` is the page of the row."""

    custom_id: str
    address: str


class Failure(NamedTuple):
    """Rows that failed for one reason: ``status`` is the one they were answered with, None for none."""

    rows: int
    status: int | None
    code: str
    title: str
    address: str
    examples: list[FailedRow]


class Failures(NamedTuple):
    """The causes with most rows first. ``counted`` of ``failed`` rows have been looked at so far."""

    causes: list[Failure]
    counted: int
    failed: int


async def failures(request: Request, batches: Sequence[Batch]) -> Failures:
    """Of the first of ``batches`` that have failed rows, as far as they have been counted: no page waits for that."""
    storage, tallies = host(request).storage, dashboard(request).tallies

    async def count(batch_id: str, seconds: float) -> Tally | None:
        record = await storage.metadata.batches.get(batch_id)
        if record is None:
            return None
        return await tallies.causes(ResultsReader(storage, _READ_SECONDS), record, seconds)

    with_failed = [batch for batch in batches if batch.request_counts.failed][:_BATCHES]
    found = await dashboard(request).failure_counts.look(with_failed, count)
    return merged(found, sum(batch.request_counts.failed for batch in with_failed))


def merged(tallies: Mapping[str, Tally], failed: int) -> Failures:
    """The same causes in several batches are one; its address is in the batch that has most of them. Pure."""
    most: dict[str, tuple[int, Failure]] = {}
    for batch_id, tally in tallies.items():
        for key, group in tally.causes.items():
            before, known = most.get(key, (0, None))
            count = group.count + (known.rows if known else 0)
            if known is None or group.count > before:
                at = f"/batches/{batch_id}"
                some = [
                    FailedRow(one_line(row.view.custom_id, 60) or "(empty)", f"{at}/rows/{row.place}")
                    for row in group.examples[:_EXAMPLES]
                ]
                address = f"{at}/results?outcome=failed&cause={key}"
                title = one_line(group.cause.title or "(no message)", 200)
                known = Failure(count, group.cause.status, one_line(group.cause.code, 60), title, address, some)
                before = group.count
            most[key] = (before, known._replace(rows=count))
    listed = sorted((failure for _, failure in most.values()), key=lambda each: -each.rows)[:_LISTED]
    return Failures(listed, sum(tally.counted for tally in tallies.values()), failed)
