"""Why rows failed, of one batch or of several, with some of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fastapi import Request

from gristmill.batches.results.reader import ResultsGone, ResultsReader
from gristmill.batches.results.tally import Tally
from gristmill.html_page import one_line
from gristmill.web.visitor import dashboard, host
from gristmill.wire.batch import Batch

#: Causes that are listed, rows named with each, and batches that are looked at on a page of several.
_LISTED, _EXAMPLES, _BATCHES = 8, 3, 6
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


async def failures(request: Request, batches: Sequence[Batch], seconds: float) -> Failures:
    """Of the first of ``batches`` that have failed rows. Goes on counting for about ``seconds`` where a batch has many;
    what it has not come to is counted the next time."""
    with_failed = [batch for batch in batches if batch.request_counts.failed][:_BATCHES]
    found: dict[str, Tally] = {}
    for batch in with_failed:
        try:
            record = await host(request).batches.record(batch.id)
            reader = ResultsReader(host(request).storage, _READ_SECONDS)
            share = seconds / len(with_failed)
            found[batch.id] = await dashboard(request).tallies.causes(reader, record, share)
        except ResultsGone:
            continue
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
                    FailedRow(one_line(row.view.custom_id or "(empty)", 60), f"{at}/rows/{row.place}")
                    for row in group.examples[:_EXAMPLES]
                ]
                address = f"{at}/results?outcome=failed&cause={key}"
                title = one_line(group.cause.title or "(no message)", 200)
                known = Failure(count, group.cause.status, one_line(group.cause.code, 60), title, address, some)
                before = group.count
            most[key] = (before, known._replace(rows=count))
    listed = sorted((failure for _, failure in most.values()), key=lambda each: -each.rows)[:_LISTED]
    return Failures(listed, sum(tally.counted for tally in tallies.values()), failed)
