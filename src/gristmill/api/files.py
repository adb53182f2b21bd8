"""``/v1/files``."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from gristmill.api.byte_range import ByteRange, Unsatisfiable, parse_range
from gristmill.api.description import described, page_query
from gristmill.api.exchange import begun, host, page_limit, reply
from gristmill.api.idempotency import idempotency_key, used_key
from gristmill.batches.incoming import IncomingFile, expiry, new_file_id
from gristmill.multipart_form import read_form
from gristmill.storage.errors import StorageError
from gristmill.storage.housekeeping import erase_deleted
from gristmill.storage.records import FileRecord, file_blob
from gristmill.telemetry.log import get_logger
from gristmill.wire.common import ListPage
from gristmill.wire.errors import ApiError, clip, invalid_value, missing_parameter, not_found
from gristmill.wire.files import FILE_LIFETIME_SECONDS, UPLOAD_PURPOSES, ExpiresAfter, File, FileDeleted
from gristmill.wire.json import encode, explain

log = get_logger(__name__)

router = APIRouter(prefix="/v1/files", tags=["files"])

#: Of a download, held for a client that may be slow; small enough for its progress to be watched.
_PIECE_BYTES = 256 * 1024
_FORM = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
        "purpose": {"type": "string", "enum": list(UPLOAD_PURPOSES)},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {
            "type": "integer", "minimum": FILE_LIFETIME_SECONDS[0], "maximum": FILE_LIFETIME_SECONDS[1],
        },
    },
    "required": ["file", "purpose"],
}  # fmt: skip
_LIST_QUERY = page_query(10_000, 10_000) | {
    "purpose": {"type": "string"}, "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
}  # fmt: skip


@router.post("", summary="Upload a file", openapi_extra=described(form=_FORM, answer=File, keyed=True, limited=True))
async def create(request: Request) -> Response:
    storage = host(request).storage
    file_id = new_file_id()
    keyed = idempotency_key(request) is not None
    room = await storage.metadata.files.room()
    async with storage.new_blobs.begin(file_blob(file_id)) as write:
        incoming = IncomingFile(write, room, hashlib.sha256() if keyed else None)
        form = await read_form(request, "file", incoming.receive)
        purpose = form.fields.get("purpose")
        if purpose is None:
            raise missing_parameter("purpose")
        lifetime = _lifetime(form.fields)
        incoming.check(purpose)
        now = int(time.time())
        record = FileRecord(
            id=file_id,
            bytes=incoming.bytes,
            created_at=now,
            filename=form.filename,
            purpose=purpose,
            expires_at=expiry(purpose, now, lifetime),
        )
        created = present(record)
        key = used_key(request, encode((purpose, form.filename, lifetime, incoming.digest())))
        await storage.metadata.files.add(record, None if key is None else key.answered(created))
    return reply(created)


@router.get("", summary="List files", openapi_extra=described(answer=ListPage[File], query=_LIST_QUERY))
async def list_files(request: Request) -> Response:
    query = request.query_params
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid_value("order", order[:40], "'asc' and 'desc'")
    page = await host(request).storage.metadata.files.page(
        after=query.get("after"),
        limit=page_limit(request, default=10_000, maximum=10_000),
        newest_first=order == "desc",
        purpose=query.get("purpose"),
        now=int(time.time()),
    )
    data = [present(record) for record in page.records]
    first, last = (data[0].id, data[-1].id) if data else ("", "")
    return reply(ListPage(data, first, last, page.has_more))


@router.get("/{file_id}", summary="Retrieve a file", openapi_extra=described(answer=File))
async def retrieve(request: Request, file_id: str) -> Response:
    return reply(present(await _find(request, file_id)))


@router.delete("/{file_id}", summary="Delete a file", openapi_extra=described(answer=FileDeleted))
async def delete(request: Request, file_id: str) -> Response:
    storage = host(request).storage
    if not await storage.metadata.files.delete(file_id):
        raise _unknown(file_id)
    try:
        await erase_deleted(storage)
    except StorageError as error:
        # The file is gone for everybody; housekeeping frees the bytes.
        log.warning("a deleted file's bytes are still there", file=file_id, reason=str(error))
    return reply(FileDeleted(file_id))


@router.get(
    "/{file_id}/content",
    summary="Download a file, or a range of it",
    openapi_extra=described(
        media={"application/octet-stream": Any}, headers={"Range": {"type": "string"}}, also=[206, 416]
    ),
)
async def content(request: Request, file_id: str) -> Response:
    file = await _find(request, file_id)
    headers = {"accept-ranges": "bytes", "content-disposition": f'attachment; filename="{file.id}.jsonl"'}
    try:
        part = parse_range(request.headers.get("range"), file.bytes)
    except Unsatisfiable:
        answer = ApiError(416, f"The requested range is not within the file's {file.bytes} bytes.").response()
        return reply(answer, 416, {"content-range": f"bytes */{file.bytes}"})
    status = 200
    if part is not None:
        status = 206
        headers["content-range"] = f"bytes {part.start}-{part.end - 1}/{file.bytes}"
    start, end = part or ByteRange(0, file.bytes)
    headers["content-length"] = str(end - start)
    stream = host(request).storage.blobs.stream(file_blob(file.id), start, end, _PIECE_BYTES)
    return StreamingResponse(await begun(stream), status, headers, media_type="application/octet-stream")


def present(record: FileRecord) -> File:
    """The file object of the API."""
    return File(**{name: getattr(record, name) for name in _SHARED_FIELDS})


_SHARED_FIELDS = set(File.__struct_fields__) & set(FileRecord.__struct_fields__)


def _lifetime(fields: dict[str, str]) -> int | None:
    """``expires_after`` arrives as two bracketed text fields."""
    given = {key: fields[f"expires_after[{key}]"] for key in ("anchor", "seconds") if f"expires_after[{key}]" in fields}
    if not given:
        return None
    try:
        return msgspec.convert(given, ExpiresAfter, strict=False).seconds
    except msgspec.ValidationError as error:
        refusal = explain(str(error))
        param = f"expires_after.{refusal.body.param}" if refusal.body.param else "expires_after"
        raise ApiError(400, refusal.body.message, param=param, code=refusal.body.code) from None


async def _find(request: Request, file_id: str) -> FileRecord:
    record = await host(request).storage.metadata.files.get(file_id)
    if record is None or (record.expires_at is not None and record.expires_at <= time.time()):
        raise _unknown(file_id)
    return record


def _unknown(file_id: str) -> ApiError:
    return not_found(f"No such File object: {clip(file_id)}", param="id")
