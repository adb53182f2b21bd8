"""What a server is doing, in one sentence: for those who look at it from outside, such as ``systemctl status``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gristmill.telemetry.progress import duration
from gristmill.wire.batch import BatchProgress


class BatchAtWork(NamedTuple):
    """``done`` are rows with a result; both numbers are 0 before the input has been read."""

    id: str
    done: int
    total: int
    progress: BatchProgress


def status_line(at_work: Sequence[BatchAtWork], outage: str | None) -> str:
    """``outage`` is why the engine answers nothing now; None: it does."""
    if not at_work:
        return f"No batch to run. The engine is away: {outage}" if outage else "No batch to run."
    if len(at_work) == 1:
        (one,) = at_work
        said = [f"Batch {one.id}: {_counted(one.done, one.total)}", *_pace(one.progress)]
    else:
        done, total = (sum(getattr(each, name) for each in at_work) for name in ("done", "total"))
        said = [f"{len(at_work)} batches: {_counted(done, total)}"]
        paces = [each.progress.rows_per_second for each in at_work if each.progress.rows_per_second is not None]
        said += [f"{sum(paces):,.1f} rows/s"] if paces else []
    reason = outage or next((each.progress.waiting_for for each in at_work if each.progress.waiting_for), None)
    return f"{', '.join(said)}.{f' Waiting: {reason}' if reason else ''}"


def _counted(done: int, total: int) -> str:
    return f"{done:,} of {total:,} rows" if total else "reading its rows"


def _pace(progress: BatchProgress) -> list[str]:
    said = []
    if progress.rows_per_second is not None:
        said.append(f"{progress.rows_per_second:,.1f} rows/s")
    if progress.eta_seconds is not None:
        said.append(f"{duration(progress.eta_seconds)} left")
    return said
