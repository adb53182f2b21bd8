"""Rows as people look at them, with what came of them so far; and where they are found once a batch has ended."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, insert, select

from gristmill.storage.row_records import (
    ResultPlace,
    Row,
    RowFilter,
    SeenRow,
)
from gristmill.storage.sql.any_text import begins
from gristmill.storage.sql.schema import result_places, results, rows

_columns = (
    rows.c.line, rows.c.custom_id, rows.c.offset, rows.c.length, results.c.succeeded, results.c.payload,
)  # fmt: skip


def select_seen(
    connection: Connection, batch_seq: int, wanted: RowFilter, after_line: int, upto_line: int, limit: int
) -> list[SeenRow]:
    has_result = wanted.outcome in ("succeeded", "failed")
    # The table that leads has the condition that leaves most out: failed results have an index of their own.
    leading, other = (results, rows) if has_result else (rows, results)

    def is_between(table: Table) -> ColumnElement[bool]:
        return and_(table.c.line > after_line, table.c.line <= upto_line)

    # Said of each table: PostgreSQL may go through both side by side.
    same_row = and_(results.c.batch == rows.c.batch, results.c.line == rows.c.line, is_between(other))
    conditions: list[ColumnElement[bool]] = [leading.c.batch == batch_seq, is_between(leading)]
    if wanted.outcome == "succeeded":
        conditions.append(results.c.succeeded)
    elif wanted.outcome == "failed":
        conditions.append(~results.c.succeeded)
    elif wanted.outcome == "waiting":
        conditions.append(results.c.line.is_(None))
    if wanted.custom_id is not None:
        conditions.append(
            begins(rows.c.custom_id, wanted.custom_id) if wanted.prefix else rows.c.custom_id == wanted.custom_id
        )
    joined = results.join(rows, same_row) if has_result else rows.outerjoin(results, same_row)
    query = select(*_columns).select_from(joined).where(*conditions).order_by(leading.c.line).limit(limit)
    return [
        SeenRow(Row(line, custom_id, offset, length), succeeded, payload)
        for line, custom_id, offset, length, succeeded, payload in connection.execute(query)
    ]


def select_offsets(connection: Connection, batch_seq: int, lines: Sequence[int]) -> dict[int, int]:
    query = select(rows.c.line, rows.c.offset).where(rows.c.batch == batch_seq, rows.c.line.in_(lines))
    return {int(line): int(offset) for line, offset in connection.execute(query)}


def replace_places(connection: Connection, batch_seq: int, places: Sequence[ResultPlace]) -> None:
    drop_places(connection, batch_seq)
    if places:
        connection.execute(insert(result_places), [each._asdict() | {"batch": batch_seq} for each in places])


def drop_places(connection: Connection, batch_seq: int) -> None:
    connection.execute(delete(result_places).where(result_places.c.batch == batch_seq))


def select_places(connection: Connection, batch_seq: int) -> list[ResultPlace]:
    fields = [result_places.c[name] for name in ResultPlace._fields]
    order = (result_places.c.succeeded.desc(), result_places.c.line)
    found = connection.execute(select(*fields).where(result_places.c.batch == batch_seq).order_by(*order))
    return [ResultPlace(*row) for row in found]
