"""The batches that have not ended, for who watches a server: read at every scrape, so no more than that takes."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from gristmill.storage.records import UNFINISHED_STATUSES, RunnerReport, UnfinishedBatch
from gristmill.storage.sql.lease import REPORT
from gristmill.storage.sql.schema import batches
from gristmill.wire.batch import BatchPlan

_UNFINISHED = batches.c.status.in_(UNFINISHED_STATUSES)
_LISTED = (
    select(*(REPORT if name == "report" else batches.c[name] for name in UnfinishedBatch._fields))
    .where(_UNFINISHED)
    .order_by(batches.c.lease_owner.is_(None), batches.c.priority.desc(), batches.c.lease_until, batches.c.seq)
    .limit(bindparam("limit"))
)
_COUNTED = select(batches.c.status, func.count()).where(_UNFINISHED).group_by(batches.c.status)


def select_unfinished(
    connection: Connection, there: ColumnElement[bool], limit: int
) -> tuple[list[UnfinishedBatch], dict[str, int]]:
    """At most ``limit`` of those that are ``there``, and how many there are of each status."""
    found = connection.execute(_LISTED.where(there), {"limit": limit})
    listed = []
    for *told, plan, report in found:
        kept = msgspec.convert(plan, BatchPlan | None), msgspec.convert(report, RunnerReport | None)
        listed.append(UnfinishedBatch._make((*told, *kept)))
    return listed, dict(map(tuple, connection.execute(_COUNTED.where(there))))
