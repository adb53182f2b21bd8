"""What is stored of a batch, looked at for what cannot be true."""

from __future__ import annotations

from sqlalchemy import Connection, and_, func, select

from gristmill.storage.records import TERMINAL_STATUSES
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import batches, results, rows
from gristmill.storage.upkeep_protocol import Disagreement


async def disagreements(database: Database) -> list[Disagreement]:
    found = await database.read(lambda connection: _of_nobody(connection, database))
    for seq in await database.read(lambda connection: list(connection.scalars(select(batches.c.seq)))):
        found += await database.read_rows(seq, lambda connection: _of_batch(connection, seq))  # noqa: B023 - awaited at once
    return found


def _of_nobody(connection: Connection, database: Database) -> list[Disagreement]:
    """Rows of batches that there are not."""
    unknown = database.batches_with_rows(connection) - set(connection.scalars(select(batches.c.seq)))
    return [Disagreement(f"batch number {seq}", "there are rows of it, but no batch") for seq in sorted(unknown)]


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
