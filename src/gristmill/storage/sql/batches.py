"""Batches in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    null,
    select,
    update,
)

from gristmill.storage.records import (
    TERMINAL_STATUSES,
    UNFINISHED_STATUSES,
    BatchRecord,
    Changes,
    Claim,
    FileRecord,
    Lease,
    RecordPage,
    RunnerReport,
    ServerRecord,
    Stage,
    UnfinishedBatch,
    UsedKey,
)
from gristmill.storage.scope import EVERYTHING, Scope
from gristmill.storage.sql import claims
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.deliveries import announce_end
from gristmill.storage.sql.files import delete_files, insert_file, select_page
from gristmill.storage.sql.idempotency import use_key
from gristmill.storage.sql.lease import REPORT, require_lease
from gristmill.storage.sql.retries import link_retry, unlink_retry
from gristmill.storage.sql.schema import batches, result_places
from gristmill.storage.sql.scoped import check_batch, enqueued_rows, owned, seen
from gristmill.storage.sql.unfinished import select_unfinished
from gristmill.wire.prefix_tree import PrefixBox

_FIELDS = [REPORT if name == "report" else batches.c[name] for name in BatchRecord.__struct_fields__]
#: Without what no list shows: it may be a megabyte a batch.
_LISTED = [null().label(field.name) if field.name == "defaults" else field for field in _FIELDS]

_ENDED_AT = (batches.c.completed_at, batches.c.failed_at, batches.c.expired_at, batches.c.cancelled_at)
#: Batches forgotten in one transaction.
_PRUNED_AT_ONCE = 1_000


def _record(row: Row[Any]) -> BatchRecord:
    return msgspec.convert(dict(zip(BatchRecord.__struct_fields__, row, strict=True)), BatchRecord)


class SqlBatches:
    def __init__(self, database: Database, scope: Scope = EVERYTHING) -> None:
        self._database = database
        self._scope = scope

    async def add(
        self, batch: BatchRecord, key: UsedKey | None = None, files: Sequence[FileRecord] = ()
    ) -> BatchRecord:
        values = msgspec.to_builtins(batch)
        del values["seq"], values["report"]
        # A retry by an admin is whose batch it retries.
        scope = EVERYTHING if batch.retry_of is not None and self._scope.everything else self._scope
        values["key_id"] = owned(scope, batch.key_id)
        statement = insert(batches).values(**values, deleted=False, lease_until=0)

        def work(connection: Connection) -> int:
            use_key(connection, key, self._scope)
            check_batch(connection, scope, batch.total)
            link_retry(connection, self._scope, batch)
            for file in files:
                insert_file(connection, file, scope)
            inserted = connection.execute(statement).inserted_primary_key
            assert inserted is not None
            self._database.tell(connection, batch.id)
            return int(inserted[0])

        seq = await self._database.write(work)
        return msgspec.structs.replace(batch, seq=seq, key_id=values["key_id"])

    async def get(self, batch_id: str) -> BatchRecord | None:
        query = select(*_FIELDS).where(batches.c.id == batch_id, ~batches.c.deleted, seen(batches, self._scope))
        return await self._one(query, {})

    async def prefix_tree(self, batch_id: str) -> list[PrefixBox] | None:
        query = select(batches.c.prefix_tree).where(
            batches.c.id == batch_id, ~batches.c.deleted, seen(batches, self._scope)
        )
        found = await self._database.read(lambda connection: connection.scalar(query))
        return None if found is None else msgspec.convert(found, list[PrefixBox])

    async def page(
        self,
        *,
        after: str | None,
        limit: int,
        before: str | None = None,
        endpoint: str | None = None,
        ended: bool | None = None,
    ) -> RecordPage:
        query = select(*_LISTED).where(~batches.c.deleted)
        if endpoint is not None:
            query = query.where(batches.c.endpoint == endpoint)
        if ended is not None:
            # Few are unfinished: the index of the status finds them. The others are nearly all, and are met by going
            # back from the newest, where an index would have all of them sorted.
            status = batches.c.status
            query = query.where(status.not_in(UNFINISHED_STATUSES) if ended else status.in_(UNFINISHED_STATUSES))
        cursor, newest_first = (after, True) if before is None else (before, False)
        found, more = await self._database.read(
            lambda connection: select_page(
                connection,
                batches,
                query,
                seen(batches, self._scope),
                after=cursor,
                limit=limit,
                newest_first=newest_first,
            )
        )
        records = [_record(row) for row in found]
        return RecordPage(records if newest_first else records[::-1], more)

    async def unfinished(self, limit: int) -> tuple[list[UnfinishedBatch], dict[str, int]]:
        there = seen(batches, self._scope)
        return await self._database.read(lambda connection: select_unfinished(connection, there, limit))

    async def change(
        self,
        batch_id: str,
        changes: Changes,
        *,
        expected: str,
        lease: Lease | None = None,
        files: Sequence[FileRecord] = (),
    ) -> bool:
        values = msgspec.to_builtins(changes)
        there = (batches.c.id == batch_id, batches.c.status == expected, seen(batches, self._scope))
        statement = update(batches).where(*there).values(**values)

        def work(connection: Connection) -> bool:
            if lease is not None:
                require_lease(connection, lease)
            if connection.execute(statement).rowcount == 0:
                return False
            for file in files:
                insert_file(connection, file, self._scope)
            if values.get("status") in TERMINAL_STATUSES:
                announce_end(connection, batch_id, values)
            if lease is None:
                # Whoever works on it is to know; it knows itself what it has changed.
                self._database.tell(connection, batch_id)
            return True

        return await self._database.write(work, even_if_full=True)

    async def delete(self, batch_id: str, files: Sequence[str]) -> bool:
        forget = (
            update(batches)
            .where(
                batches.c.id == batch_id,
                batches.c.status.in_(TERMINAL_STATUSES),
                ~batches.c.deleted,
                seen(batches, self._scope),
            )
            .values(deleted=True, metadata=None, defaults=None, errors=None, webhook=None, prefix_tree=None)
        )

        def work(connection: Connection) -> bool:
            if connection.execute(forget).rowcount == 0:
                return False
            _drop_places(connection)
            unlink_retry(connection, batch_id)
            delete_files(connection, files, self._scope)
            return True

        return await self._database.write(work, even_if_full=True)

    async def enqueued_rows(self, key_id: str, but_batch: str) -> int:
        return await self._database.read(lambda connection: enqueued_rows(connection, key_id, but_batch))

    async def prune(self, ended_before: int) -> int:
        def work(connection: Connection) -> int:
            forgotten = prunable(ended_before, self._database.batches_with_rows(connection))
            old = select(batches.c.seq).where(forgotten).limit(_PRUNED_AT_ONCE)
            if pruned := connection.execute(delete(batches).where(batches.c.seq.in_(old))).rowcount:
                _drop_places(connection)
            return pruned

        return await self._database.write(work, even_if_full=True)

    async def claim(
        self, owner: str, now: float, lease_seconds: float, stage: Stage, only_for: ServerRecord | None = None
    ) -> Claim | None:
        query, values = claims.in_line(select(*_FIELDS), stage, only_for, owner), {"now": now}
        if await self._one(query, values) is None:
            # Asked again and again: most often it need not wait for its turn to write.
            return None

        def work(connection: Connection) -> Claim | None:
            found = connection.execute(query, values).one_or_none()
            if found is None:
                return None
            record = _record(found)
            lease = claims.take(connection, record.seq, owner, lease_seconds)
            return None if lease is None else Claim(record, lease)

        return await self._database.write(work)

    async def next_in_line(self, now: float, stage: Stage, only_for: ServerRecord | None = None) -> BatchRecord | None:
        return await self._one(claims.in_line(select(*_FIELDS), stage, only_for), {"now": now})

    async def renew(
        self, owner: str, lease_seconds: float, reports: Mapping[int, RunnerReport] | None = None
    ) -> list[Lease]:
        return await self._database.write(
            lambda connection: claims.renew(connection, owner, lease_seconds, reports or {})
        )

    async def release(self, lease: Lease, pause: float = 0, report: RunnerReport | None = None) -> None:
        statement = claims.give_back(lease, pause, report).returning(batches.c.id, batches.c.status)

        def work(connection: Connection) -> None:
            given_back = connection.execute(statement).one_or_none()
            if given_back is not None and given_back.status not in TERMINAL_STATUSES and pause == 0:
                self._database.tell(connection, given_back.id)

        await self._database.write(work, even_if_full=True)

    async def release_all(self) -> None:
        await self._database.write(lambda connection: connection.execute(claims.VOID_ALL), even_if_full=True)

    async def _one(self, query: Select[Any], values: dict[str, Any]) -> BatchRecord | None:
        found = await self._database.read(lambda connection: connection.execute(query, values).one_or_none())
        return _record(found) if found else None


def prunable(ended_before: int, with_rows: Collection[int]) -> ColumnElement[bool]:
    """Which batches may be forgotten: none of those ``with_rows``."""
    return and_(
        batches.c.status.in_(TERMINAL_STATUSES),
        func.coalesce(*_ENDED_AT) < ended_before,
        batches.c.seq < select(func.max(batches.c.seq)).scalar_subquery(),
        batches.c.seq.not_in(with_rows),
    )


def _drop_places(connection: Connection) -> None:
    """Those in the files of batches that are forgotten: there are few of them, one for some thousand rows."""
    kept = select(batches.c.seq).where(~batches.c.deleted)
    connection.execute(delete(result_places).where(result_places.c.batch.not_in(kept)))
