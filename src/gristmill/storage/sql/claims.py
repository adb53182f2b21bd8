"""Which batch is next in line, and how a lease on it is given, renewed and given back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Float,
    Select,
    Update,
    and_,
    bindparam,
    not_,
    or_,
    select,
    update,
)

from gristmill.storage.records import TERMINAL_STATUSES, Lease, RunnerReport, ServerRecord, Stage
from gristmill.storage.sql.clock import clock
from gristmill.storage.sql.lease import held
from gristmill.storage.sql.schema import batches

#: Seconds; also for the pause of a batch that nobody holds. So long may a batch wait when the clock is set back.
LONGEST_LEASE = 120.0

_NOW = bindparam("now", type_=Float())
#: No lease is longer: one that is was made before the clock was set back.
_FREE = or_(batches.c.lease_until <= clock(), batches.c.lease_until > clock() + LONGEST_LEASE)
_REPORT = (
    update(batches)
    .where(batches.c.lease_owner == bindparam("owner"), batches.c.seq == bindparam("of"))
    .values(report=bindparam("told", type_=JSON()))
)
VOID_ALL = update(batches).values(lease_owner=None, lease_until=0)


def in_line(
    query: Select[Any], stage: Stage, only_for: ServerRecord | None = None, owner: str | None = None
) -> Select[Any]:
    """The next one of ``query``, whose windows end by the value "now". For an ``owner``, none that it has a lease on,
    though that has run out."""
    query = query.where(_at_stage(stage), _FREE)
    if owner is not None:
        query = query.where(or_(batches.c.lease_owner.is_(None), batches.c.lease_owner != owner))
    if only_for is not None and stage is not Stage.ENDING:
        # As ``ServerRecord.serves`` says; what only ends needs no engine.
        served = or_(batches.c.model.is_(None), batches.c.model.in_(only_for.models))
        query = query.where(served, batches.c.endpoint.in_(only_for.endpoints))
    return query.order_by(batches.c.priority.desc(), batches.c.lease_until, batches.c.seq).limit(1)


def _at_stage(stage: Stage) -> ColumnElement[bool]:
    """The same as ``batches/lifecycle.py`` says of a record."""
    done = and_(batches.c.status == "in_progress", batches.c.completed + batches.c.failed == batches.c.total)
    only_ending = or_(batches.c.status.in_(("cancelling", "finalizing")), done, batches.c.expires_at <= _NOW)
    if stage is Stage.ENDING:
        return and_(batches.c.status.not_in(TERMINAL_STATUSES), only_ending)
    status = "validating" if stage is Stage.VALIDATION else "in_progress"
    return and_(batches.c.status == status, batches.c.paused_at.is_(None), not_(only_ending))


def take(connection: Connection, batch_seq: int, owner: str, seconds: float) -> Lease | None:
    """None where it is not free any more."""
    statement = (
        update(batches)
        .where(batches.c.seq == batch_seq, _FREE)
        .values(
            lease_owner=owner,
            lease_until=clock() + seconds,
            lease_generation=batches.c.lease_generation + 1,
            report=msgspec.to_builtins(RunnerReport()),
        )
        .returning(batches.c.lease_generation)
    )
    generation = connection.scalar(statement)
    return None if generation is None else Lease(batch_seq, owner, generation)


def renew(connection: Connection, owner: str, seconds: float, reports: Mapping[int, RunnerReport]) -> list[Lease]:
    """All that ``owner`` holds; ``reports`` by the batch's number."""
    own = batches.c.lease_owner == owner
    connection.execute(update(batches).where(own).values(lease_until=clock() + seconds))
    told = [{"owner": owner, "of": seq, "told": msgspec.to_builtins(report)} for seq, report in reports.items()]
    if told:
        connection.execute(_REPORT, told)
    leases = select(batches.c.seq, batches.c.lease_owner, batches.c.lease_generation).where(own)
    return [Lease(*found) for found in connection.execute(leases)]


def give_back(lease: Lease, pause: float, report: RunnerReport | None) -> Update:
    # When it was given back is its place in the line.
    values = {"lease_owner": None, "lease_until": clock() + pause, "report": msgspec.to_builtins(report)}
    return update(batches).where(held(lease)).values(**values)
