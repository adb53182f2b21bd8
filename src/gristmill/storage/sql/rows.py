"""Rows and results in SQL: the part that is written hundreds of times a second."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, and_, bindparam, exists, func, or_, select, update

from gristmill.storage.records import TERMINAL_STATUSES, Lease
from gristmill.storage.row_records import (
    ErrorRow,
    Follower,
    PendingRow,
    Result,
    ResultPlace,
    Row,
    RowFilter,
    SeenRow,
)
from gristmill.storage.sql import seen_rows
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.lease import require_lease
from gristmill.storage.sql.schema import batches, results, rows, run_order

_joined = rows.outerjoin(results, and_(results.c.batch == rows.c.batch, results.c.line == rows.c.line))

#: Behind the row "after": PostgreSQL, which may go through both tables side by side, is told so of each, or it would go
#: through all results before.
_joined_after = rows.outerjoin(
    results,
    and_(results.c.batch == rows.c.batch, results.c.line == rows.c.line, results.c.line > bindparam("after")),
)

_row_columns = (rows.c.line, rows.c.custom_id, rows.c.offset, rows.c.length)
_to_run = (results.c.line.is_(None), rows.c.original.is_(None))

_PENDING = (
    select(rows.c.line.label("place"), *_row_columns)
    .select_from(_joined_after)
    .where(rows.c.batch == bindparam("batch"), rows.c.line > bindparam("after"), *_to_run)
    .order_by(rows.c.line)
    .limit(bindparam("limit"))
)

_PENDING_IN_ORDER = (
    select(run_order.c.place, *_row_columns)
    .select_from(
        run_order.join(rows, and_(rows.c.batch == run_order.c.batch, rows.c.line == run_order.c.line)).outerjoin(
            results, and_(results.c.batch == run_order.c.batch, results.c.line == run_order.c.line)
        )
    )
    .where(run_order.c.batch == bindparam("batch"), run_order.c.place > bindparam("after"), *_to_run)
    .order_by(run_order.c.place)
    .limit(bindparam("limit"))
)

_HAS_ORDER = select(exists().where(run_order.c.batch == bindparam("batch")))

_FOLLOW = (
    update(rows)
    .where(rows.c.batch == bindparam("of"), rows.c.line == bindparam("at"))
    .values(original=bindparam("first"))
)

_SUCCEEDED = (
    select(results.c.line, results.c.payload)
    .where(results.c.batch == bindparam("batch"), results.c.line > bindparam("after"), results.c.succeeded)
    .order_by(results.c.line)
    .limit(bindparam("limit"))
)

_NOT_SUCCEEDED = (
    select(rows.c.line, rows.c.custom_id, results.c.payload)
    .select_from(_joined_after)
    .where(
        rows.c.batch == bindparam("batch"),
        rows.c.line > bindparam("after"),
        or_(results.c.line.is_(None), ~results.c.succeeded),
    )
    .order_by(rows.c.line)
    .limit(bindparam("limit"))
)

_occurrence = (
    select(
        rows.c.line,
        rows.c.custom_id,
        func.row_number().over(partition_by=rows.c.custom_id, order_by=rows.c.line).label("occurrence"),
    )
    .where(rows.c.batch == bindparam("batch"))
    .subquery()
)

_DUPLICATES = (
    select(_occurrence.c.line, _occurrence.c.custom_id)
    .where(_occurrence.c.occurrence > 1)
    .order_by(_occurrence.c.line)
    .limit(bindparam("limit"))
)


class SqlRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, lease: Lease, new: Sequence[Row]) -> None:
        values = [
            {"batch": lease.batch_seq, "line": row.line, "custom_id": row.custom_id, "offset": row.offset,
             "length": row.length}
            for row in new
        ]  # fmt: skip
        await self._insert(lease, rows, values)

    async def duplicates(self, batch_seq: int, limit: int) -> list[tuple[int, str]]:
        values = {"batch": batch_seq, "limit": limit}
        found = await self._database.read_rows(
            batch_seq, lambda connection: connection.execute(_DUPLICATES, values).all()
        )
        return [(line, custom_id) for line, custom_id in found]

    async def clear(self, lease: Lease) -> None:
        await self._database.drop_rows(lease.batch_seq, lambda connection: require_lease(connection, lease))

    async def clear_ended(self, batch_seq: int) -> None:
        await self._database.drop_rows(batch_seq, lambda _: None)

    async def leftovers(self) -> list[int]:
        ended = select(batches.c.seq).where(batches.c.status.in_(TERMINAL_STATUSES))

        def work(connection: Connection) -> list[int]:
            having = self._database.batches_with_rows(connection)
            return list(connection.scalars(ended.where(batches.c.seq.in_(having))))

        return await self._database.read(work)

    async def arrange(self, lease: Lease, place: int, lines: Sequence[int]) -> None:
        places = [{"batch": lease.batch_seq, "place": i, "line": line} for i, line in enumerate(lines, place)]
        await self._insert(lease, run_order, places)

    async def follow(self, lease: Lease, followers: Sequence[tuple[int, int]]) -> None:
        values = [{"of": lease.batch_seq, "at": line, "first": original} for line, original in followers]

        def work(connection: Connection) -> None:
            require_lease(connection, lease)
            connection.execute(_FOLLOW, values)

        if values:
            await self._database.write_rows(lease.batch_seq, work)

    async def update_statistics(self, lease: Lease) -> None:
        await self._database.update_statistics(lease.batch_seq, lambda connection: require_lease(connection, lease))

    async def pending(self, batch_seq: int, after_place: int, limit: int) -> list[PendingRow]:
        values = {"batch": batch_seq, "after": after_place, "limit": limit}

        def work(connection: Connection) -> list[PendingRow]:
            ordered = connection.scalar(_HAS_ORDER, {"batch": batch_seq})
            found = connection.execute(_PENDING_IN_ORDER if ordered else _PENDING, values)
            return [PendingRow(place, Row(*row)) for place, *row in found]

        return await self._database.read_rows(batch_seq, work)

    async def count_followers(self, batch_seq: int, lines: Sequence[int]) -> dict[int, int]:
        query = (
            select(rows.c.original, func.count())
            .where(rows.c.batch == batch_seq, rows.c.original.in_(lines))
            .group_by(rows.c.original)
        )
        found = await self._database.read_rows(batch_seq, lambda it: it.execute(query).all())
        return {int(line): int(count) for line, count in found}

    async def followers(self, batch_seq: int, lines: Sequence[int]) -> dict[int, list[Follower]]:
        query = (
            select(rows.c.original, rows.c.line, rows.c.custom_id)
            .select_from(_joined)
            .where(rows.c.batch == batch_seq, rows.c.original.in_(lines), results.c.line.is_(None))
            .order_by(rows.c.line)
        )
        found: dict[int, list[Follower]] = {}
        for original, line, custom_id in await self._database.read_rows(batch_seq, lambda it: it.execute(query).all()):
            found.setdefault(original, []).append(Follower(line, custom_id))
        return found

    async def commit(self, lease: Lease, new: Sequence[Result]) -> None:
        values = [
            {
                "batch": lease.batch_seq,
                "line": result.line,
                "succeeded": result.succeeded,
                "payload": result.payload,
            }
            for result in new
        ]
        succeeded = sum(result.succeeded for result in new)
        count = (
            update(batches)
            .where(batches.c.seq == lease.batch_seq)
            .values(
                completed=batches.c.completed + succeeded,
                failed=batches.c.failed + len(new) - succeeded,
                input_tokens=batches.c.input_tokens + sum(result.prompt_tokens for result in new),
                cached_tokens=batches.c.cached_tokens + sum(result.cached_tokens or 0 for result in new),
                output_tokens=batches.c.output_tokens + sum(result.completion_tokens for result in new),
                reused_answers=batches.c.reused_answers + sum(result.reused for result in new),
                unreported_rows=batches.c.unreported_rows + sum(result.cached_tokens is None for result in new),
            )
        )

        def work(connection: Connection) -> None:
            require_lease(connection, lease)
            connection.execute(count)
            self._database.insert_many(connection, results, values)

        await self._database.write_rows(lease.batch_seq, work)

    async def succeeded(self, batch_seq: int, after_line: int, limit: int) -> list[tuple[int, bytes]]:
        values = {"batch": batch_seq, "after": after_line, "limit": limit}
        found = await self._database.read_rows(
            batch_seq, lambda connection: connection.execute(_SUCCEEDED, values).all()
        )
        return [(line, payload) for line, payload in found]

    async def not_succeeded(self, batch_seq: int, after_line: int, limit: int) -> list[ErrorRow]:
        values = {"batch": batch_seq, "after": after_line, "limit": limit}
        found = await self._database.read_rows(
            batch_seq, lambda connection: connection.execute(_NOT_SUCCEEDED, values).all()
        )
        return [ErrorRow(*row) for row in found]

    async def seen(
        self, batch_seq: int, wanted: RowFilter, after_line: int, upto_line: int, limit: int
    ) -> list[SeenRow]:
        query = functools.partial(
            seen_rows.select_seen,
            batch_seq=batch_seq, wanted=wanted, after_line=after_line, upto_line=upto_line, limit=limit,
        )  # fmt: skip
        return await self._database.read_rows(batch_seq, query)

    async def last_line(self, batch_seq: int) -> int:
        last = select(func.max(rows.c.line)).where(rows.c.batch == batch_seq)
        return await self._database.read_rows(batch_seq, lambda connection: connection.scalar(last)) or 0

    async def offsets(self, batch_seq: int, lines: Sequence[int]) -> dict[int, int]:
        return await self._database.read_rows(batch_seq, lambda it: seen_rows.select_offsets(it, batch_seq, lines))

    async def place(self, lease: Lease, places: Sequence[ResultPlace]) -> None:
        def work(connection: Connection) -> None:
            require_lease(connection, lease)
            seen_rows.replace_places(connection, lease.batch_seq, places)

        # A part of a batch's end, which must be possible on a full disk.
        await self._database.write(work, even_if_full=True)

    async def places(self, batch_seq: int) -> list[ResultPlace]:
        return await self._database.read(lambda it: seen_rows.select_places(it, batch_seq))

    async def _insert(self, lease: Lease, table: Table, values: list[dict[str, Any]]) -> None:
        def work(connection: Connection) -> None:
            require_lease(connection, lease)
            self._database.insert_many(connection, table, values)

        if values:
            await self._database.write_rows(lease.batch_seq, work)
