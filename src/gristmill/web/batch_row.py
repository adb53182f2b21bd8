"""A batch as a page tells of it: words and figures from the batch object. Pure."""

from __future__ import annotations

from typing import NamedTuple

from gristmill.html_page import short
from gristmill.telemetry.progress import duration
from gristmill.wire.batch import Batch, BatchProgress

#: What each status is called here, in the words of a person who waits for it.
STATUSES = {
    "validating": "checking the input",
    "in_progress": "running",
    "finalizing": "writing files",
    "completed": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelling": "cancelling",
    "cancelled": "cancelled",
}
_ENDINGS = ("completed_at", "failed_at", "expired_at", "cancelled_at")


class BatchRow(NamedTuple):
    """``name`` is what its owner calls it, where they do. Texts are empty where nothing is known."""

    id: str
    name: str
    status: str
    state: str
    waits: str
    total: int
    done: int
    failed: int
    percent: str
    rows_per_second: str
    tokens_per_second: str
    reused: str
    left: str
    priority: int
    created_at: int
    ended_at: int | None


def batch_row(batch: Batch) -> BatchRow:
    counts, progress = batch.request_counts, batch.gristmill or BatchProgress()
    done = counts.completed + counts.failed
    return BatchRow(
        id=batch.id,
        name=_name(batch),
        status=batch.status,
        state=STATUSES.get(batch.status, batch.status),
        waits=progress.waiting_for or "",
        total=counts.total,
        done=done,
        failed=counts.failed,
        percent=_percent(done, counts.total),
        rows_per_second=short(progress.rows_per_second),
        tokens_per_second="" if progress.tokens_per_second is None else f"{progress.tokens_per_second:,.0f}",
        reused=_reused(batch),
        left=_left(progress),
        priority=0,
        created_at=batch.created_at,
        ended_at=next((at for name in _ENDINGS if (at := getattr(batch, name)) is not None), None),
    )


def _name(batch: Batch) -> str:
    metadata = batch.metadata or {}
    return next((metadata[key] for key in ("name", "title", "description") if metadata.get(key)), "")


def _percent(done: int, total: int) -> str:
    """Never 100 before the last row, nor 0 after the first."""
    if not total or not done:
        return "0 %"
    if done == total:
        return "100 %"
    return f"{min(max(100 * done / total, 0.1), 99.9):.1f} %"


def _reused(batch: Batch) -> str:
    usage = batch.usage
    cached = usage.input_tokens_details.cached_tokens if usage else None
    if usage is None or cached is None or not usage.input_tokens:
        return ""
    return f"{100 * cached / usage.input_tokens:.1f} %"


def _left(progress: BatchProgress) -> str:
    return "" if progress.eta_seconds is None else duration(progress.eta_seconds)
