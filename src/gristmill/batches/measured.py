"""What is measured of the unfinished batches at this moment, for who watches the server."""

from __future__ import annotations

from gristmill.batches.planned_reuse import planned_reuse
from gristmill.batches.supervisor import Supervisor
from gristmill.storage.protocol import Storage
from gristmill.storage.records import UNFINISHED_STATUSES, UnfinishedBatch
from gristmill.telemetry.batch_series import BatchSample, BatchSeries

#: Batches with series of their own; of more, those that come next are shown, and all are counted.
MAX_BATCHES = 1_000


async def measured_batches(storage: Storage, supervisor: Supervisor) -> BatchSeries:
    """Raises what storage raises."""
    unfinished, by_status = await storage.metadata.batches.unfinished(MAX_BATCHES)
    # A status that no batch has is counted, too.
    return BatchSeries(
        [_sample(batch, supervisor) for batch in unfinished], dict.fromkeys(UNFINISHED_STATUSES, 0) | dict(by_status)
    )


def _sample(batch: UnfinishedBatch, supervisor: Supervisor) -> BatchSample:
    report = batch.report
    running = supervisor.measured(batch.id) or (report.progress if report else None)
    last_result_at = supervisor.last_result_at(batch.id) or (report.last_result_at if report else None)
    known = batch.in_progress_at is not None
    return BatchSample(
        id=batch.id,
        expires_at=batch.expires_at,
        rows_remaining=batch.total - batch.completed - batch.failed if known else None,
        eta=running.eta_seconds if running else None,
        reuse=running.reused_share if running else None,
        planned_reuse=planned_reuse(batch),
        # Of one that is paused none is expected, whatever it waited for before.
        last_result_at=None if batch.paused_at is not None else last_result_at,
    )
