"""Uploads and their parts in SQL."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from gristmill.storage.records import (
    FileRecord,
    PartRecord,
    UploadRecord,
    UsedKey,
    part_blob,
)
from gristmill.storage.scope import EVERYTHING, Scope
from gristmill.storage.sql.blob_writes import end_blob_write
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.files import insert_file
from gristmill.storage.sql.idempotency import use_key
from gristmill.storage.sql.schema import upload_parts, uploads
from gristmill.storage.sql.scoped import check_bytes, owned, seen


class SqlUploads:
    def __init__(self, database: Database, scope: Scope = EVERYTHING) -> None:
        self._database = database
        self._scope = scope

    async def add(self, upload: UploadRecord, key: UsedKey | None = None) -> None:
        values = {name: getattr(upload, name) for name in upload.__struct_fields__}
        values["key_id"] = owned(self._scope, upload.key_id)

        def work(connection: Connection) -> None:
            use_key(connection, key, self._scope)
            connection.execute(insert(uploads).values(**values))

        await self._database.write(work)

    async def get(self, upload_id: str) -> UploadRecord | None:
        query = select(uploads).where(uploads.c.id == upload_id, seen(uploads, self._scope))
        found = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return UploadRecord(**found._mapping) if found else None

    async def add_part(self, part: PartRecord) -> bool:
        pending = select(uploads.c.id).where(
            uploads.c.id == part.upload_id, uploads.c.status == "pending", seen(uploads, self._scope)
        )
        values = {name: getattr(part, name) for name in part.__struct_fields__}

        def work(connection: Connection) -> bool:
            if connection.scalar(pending) is None:
                return False
            check_bytes(connection, self._scope, part.bytes)
            connection.execute(insert(upload_parts).values(**values))
            end_blob_write(connection, part_blob(part.id))
            return True

        return await self._database.write(work)

    async def parts(self, upload_id: str) -> list[PartRecord]:
        there = select(uploads.c.id).where(uploads.c.id == upload_id, seen(uploads, self._scope))
        query = select(upload_parts).where(upload_parts.c.upload_id.in_(there))
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [PartRecord(**row._mapping) for row in found]

    async def end(
        self, upload_id: str, status: str, file: FileRecord | None = None, key: UsedKey | None = None
    ) -> bool:
        statement = (
            update(uploads)
            .where(uploads.c.id == upload_id, uploads.c.status == "pending", seen(uploads, self._scope))
            .values(status=status, file_id=file.id if file else None)
        )

        def work(connection: Connection) -> bool:
            use_key(connection, key, self._scope)
            if connection.execute(statement).rowcount == 0:
                return False
            if file is not None:
                # Whose the upload is, whoever puts it together.
                key_id = connection.scalar(select(uploads.c.key_id).where(uploads.c.id == upload_id))
                insert_file(connection, file, self._scope._replace(key_id=key_id), upload_id)
            return True

        return await self._database.write(work, even_if_full=True)

    async def overdue(self, now: int) -> list[str]:
        query = select(uploads.c.id).where(uploads.c.status == "pending", uploads.c.expires_at <= now)
        return await self._database.read(lambda connection: list(connection.scalars(query)))

    async def forget_parts(self, upload_id: str) -> None:
        statement = delete(upload_parts).where(upload_parts.c.upload_id == upload_id)
        await self._database.write(lambda connection: connection.execute(statement), even_if_full=True)
