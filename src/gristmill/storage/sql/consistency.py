"""What is stored of a batch, looked at for what cannot be true."""

from __future__ import annotations

from sqlalchemy import Connection, Table, and_, func, select

from gristmill.storage.records import TERMINAL_STATUSES
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import batches, results, rows, run_order
from gristmill.storage.upkeep_protocol import Disagreement


async def disagreements(database: Database) -> list[Disagreement]:
    found = await database.read(_of_nobody)
    for seq in await database.read(lambda connection: list(connection.scalars(select(batches.c.seq)))):
        found += await database.read(lambda connection: _of_batch(connection, seq))  # noqa: B023 - awaited at once
    return found


def _of_nobody(connection: Connection) -> list[Disagreement]:
    """Rows of batches that there are not."""
    known = set(connection.scalars(select(batches.c.seq)))
    found = []
    for table in (rows, results, run_order):
        for seq in _batches_in(connection, table):
            if seq not in known:
                found.append(Disagreement(f"batch number {seq}", f"there are {table.name} of it, but no batch"))
    return found


def _batches_in(connection: Connection, table: Table) -> list[int]:
    """By one step in the index for each, as there may be millions of rows."""
    found: list[int] = []
    after = -1
    while (seq := connection.scalar(select(func.min(table.c.batch)).where(table.c.batch > after))) is not None:
        found.append(seq)
        after = seq
    return found


def _of_batch(connection: Connection, seq: int) -> list[Disagreement]:
    """All from one moment: counts and results change in one step."""
    batch = connection.execute(select(batches).where(batches.c.seq == seq)).one_or_none()
    if batch is None:
        return []
    wrong = []
    counted = batch.completed + batch.failed
    if counted > batch.total and batch.in_progress_at is not None:
        wrong.append(f"{counted:,} rows are counted as done, of {batch.total:,}")
    if batch.status not in (*TERMINAL_STATUSES, "validating") and batch.in_progress_at is not None:
        stored, indexed = (
            connection.scalar(select(func.count()).select_from(table).where(table.c.batch == seq)) or 0
            for table in (results, rows)
        )
        if stored != counted:
            wrong.append(f"{counted:,} rows are counted as done, and {stored:,} results are stored")
        if indexed != batch.total:
            wrong.append(f"it has {batch.total:,} rows, and {indexed:,} are indexed")
        if lost := _results_of_no_row(connection, seq):
            wrong.append(f"{lost:,} results are of no row")
    return [Disagreement(batch.id, each) for each in wrong]


def _results_of_no_row(connection: Connection, seq: int) -> int:
    at = results.outerjoin(rows, and_(rows.c.batch == results.c.batch, rows.c.line == results.c.line))
    lost = select(func.count()).select_from(at).where(results.c.batch == seq, rows.c.line.is_(None))
    return connection.scalar(lost) or 0
