"""A batch as a page tells of it: words and figures from the batch object. Pure."""

from __future__ import annotations

from typing import NamedTuple

from gristmill.html_page import one_line
from gristmill.telemetry.progress import duration
from gristmill.web.curves import speed
from gristmill.wire.batch import Batch, BatchProgress

#: What each status is called here, in the words of a person who waits for it.
STATUSES = {
    "validating": "checking the input",
    "in_progress": "running",
    "finalizing": "writing the files",
    "completed": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelling": "cancelling",
    "cancelled": "cancelled",
}
_ENDINGS = ("completed_at", "failed_at", "expired_at", "cancelled_at")
_LONGEST_NAME = 80


class BatchRow(NamedTuple):
    """Texts are empty, and numbers None, where nothing is known. ``left`` is the time that is left, ``band`` its 90 %
    interval."""

    id: str
    name: str
    status: str
    state: str
    waits: str
    warning: str
    total: int
    done: int
    failed: int
    percent: str
    rows_per_second: str
    tokens_per_second: str
    reused: str
    left: str
    band: str
    created_at: int
    ended_at: int | None


def batch_row(batch: Batch, name: str = "") -> BatchRow:
    """``name``: what people call it, if anything."""
    counts, progress = batch.request_counts, batch.gristmill or BatchProgress()
    ended_at = next((at for name in _ENDINGS if (at := getattr(batch, name)) is not None), None)
    done, paused = counts.completed + counts.failed, progress.paused_at is not None
    return BatchRow(
        id=batch.id,
        name=one_line(name, _LONGEST_NAME) or batch.id,
        status=batch.status,
        state="paused" if paused else STATUSES.get(batch.status, batch.status),
        waits="" if paused else progress.waiting_for or "",
        warning=progress.plan.disk_warning or "" if progress.plan and ended_at is None else "",
        total=counts.total,
        done=done,
        failed=counts.failed,
        percent=percent(done, counts.total),
        rows_per_second="" if progress.rows_per_second is None else speed(progress.rows_per_second),
        tokens_per_second="" if progress.tokens_per_second is None else speed(progress.tokens_per_second),
        reused=reused([batch]),
        left="" if progress.eta_seconds is None else duration(progress.eta_seconds),
        band=band(progress),
        created_at=batch.created_at,
        ended_at=ended_at,
    )


def percent(done: int, total: int) -> str:
    """Never 100 before the last row, nor 0 after the first."""
    if not total or not done:
        return "0 %"
    if done == total:
        return "100 %"
    return f"{min(max(100 * done / total, 0.1), 99.9):.1f} %"


def reused(batches: list[Batch]) -> str:
    """The share of the prompt tokens so far that came from a cache; empty where one engine did not say."""
    usages = [batch.usage for batch in batches if batch.usage is not None and batch.usage.input_tokens]
    cached = [usage.input_tokens_details.cached_tokens for usage in usages]
    known = [tokens for tokens in cached if tokens is not None]
    if not usages or len(known) < len(cached):
        return ""
    return f"{100 * sum(known) / sum(usage.input_tokens for usage in usages):.1f} %"


def band(progress: BatchProgress) -> str:
    """ "1.9 to 2.4 hours"; empty where it is not known, or says no more than the figure itself."""
    low, high = progress.eta_low_seconds, progress.eta_high_seconds
    if low is None:
        return ""
    lower = duration(low)
    if high is None:
        return f"at least {lower}"
    upper = duration(high)
    if lower == upper:
        return ""
    amount, unit = lower.split(" ")
    return f"{amount} to {upper}" if upper.split(" ")[1].rstrip("s") == unit.rstrip("s") else f"{lower} to {upper}"
