"""``/v1/uploads``: a big file in parts."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncIterator

import msgspec
from fastapi import APIRouter, Request, Response

from gristmill.api.description import described
from gristmill.api.exchange import MAX_JSON_BYTES, host, read_body, reply
from gristmill.api.files import present as present_file
from gristmill.api.idempotency import used_key
from gristmill.batches.incoming import MAX_FILE_BYTES, IncomingFile, check_purpose, expiry, new_file_id
from gristmill.multipart_form import read_form
from gristmill.storage.errors import BlobLost, OverLimit
from gristmill.storage.housekeeping import drop_parts
from gristmill.storage.protocol import Storage
from gristmill.storage.records import (
    FileRecord,
    PartRecord,
    UploadRecord,
    UsedKey,
    file_blob,
    part_blob,
)
from gristmill.wire.errors import ApiError, clip, not_found, too_large
from gristmill.wire.files import CompleteUploadRequest, CreateUploadRequest, Upload, UploadPart
from gristmill.wire.json import decode

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

UPLOAD_LIFETIME = 3600
MAX_PART_BYTES = 64 * 1024 * 1024

_PART_FORM = {
    "type": "object",
    "properties": {"data": {"type": "string", "contentMediaType": "application/octet-stream"}},
    "required": ["data"],
}
_create_decoder = msgspec.json.Decoder(CreateUploadRequest)
_complete_decoder = msgspec.json.Decoder(CompleteUploadRequest)


@router.post(
    "",
    summary="Begin an upload",
    openapi_extra=described(body=CreateUploadRequest, answer=Upload, keyed=True, limited=True),
)
async def create(request: Request) -> Response:
    body = await read_body(request, MAX_JSON_BYTES)
    wanted = decode(_create_decoder, body)
    check_purpose(wanted.purpose)
    if not 0 < wanted.bytes <= MAX_FILE_BYTES:
        message = f"Invalid 'bytes': expected a number between 1 and {MAX_FILE_BYTES:,}, but got {wanted.bytes:,}."
        raise ApiError(400, message, param="bytes", code="invalid_value")
    room = await host(request).storage.metadata.files.room()
    if room is not None and room.used + wanted.bytes > room.limit:
        raise OverLimit("bytes", *room, more=wanted.bytes)
    now = int(time.time())
    record = UploadRecord(
        id="upload_" + secrets.token_hex(16),
        bytes=wanted.bytes,
        created_at=now,
        expires_at=now + UPLOAD_LIFETIME,
        filename=wanted.filename,
        purpose=wanted.purpose,
        status="pending",
        file_lifetime=wanted.expires_after.seconds if wanted.expires_after else None,
    )
    created = _present(record)
    key = used_key(request, body)
    await host(request).storage.metadata.uploads.add(record, None if key is None else key.answered(created))
    return reply(created)


@router.post(
    "/{upload_id}/parts",
    summary="Add a part of at most 64 MB",
    openapi_extra=described(form=_PART_FORM, answer=UploadPart, limited=True),
)
async def add_part(request: Request, upload_id: str) -> Response:
    storage = host(request).storage
    await _pending(storage, upload_id)
    part_id = "part_" + secrets.token_hex(16)

    async with storage.new_blobs.begin(part_blob(part_id)) as write:
        form = await read_form(request, "data", lambda chunks: write(_limited(chunks)))
        part = PartRecord(part_id, upload_id, form.file, int(time.time()))
        if not await storage.metadata.uploads.add_part(part):
            await _pending(storage, upload_id)
    return reply(UploadPart(part.id, part.created_at, upload_id))


@router.post(
    "/{upload_id}/complete",
    summary="Put the parts together into a file",
    openapi_extra=described(body=CompleteUploadRequest, answer=Upload, keyed=True, limited=True),
)
async def complete(request: Request, upload_id: str) -> Response:
    storage = host(request).storage
    body = await read_body(request, MAX_JSON_BYTES)
    wanted = decode(_complete_decoder, body)
    key = used_key(request, body)
    try:
        return reply(await _complete(storage, upload_id, wanted, key))
    except (ApiError, BlobLost):
        # Perhaps because this very request has put them together before.
        if key is not None:
            await storage.metadata.keys.check(key)
        raise


async def _complete(storage: Storage, upload_id: str, wanted: CompleteUploadRequest, key: UsedKey | None) -> Upload:
    upload = await _pending(storage, upload_id)
    parts = await _ordered_parts(storage, upload, wanted.part_ids)
    file_id = new_file_id()
    async with storage.new_blobs.begin(file_blob(file_id)) as write:
        incoming = IncomingFile(write, None, hashlib.md5(usedforsecurity=False) if wanted.md5 else None)
        try:
            await incoming.receive(_joined(storage, parts))
        except BlobLost:
            # A cancel or another complete came first and dropped the parts.
            await _pending(storage, upload_id)
            raise
        if wanted.md5 and incoming.digest() != wanted.md5.lower():
            message = f"The md5 of the parts is {incoming.digest()}, but you sent {clip(wanted.md5)}."
            raise ApiError(400, message, param="md5", code="invalid_value")
        incoming.check(upload.purpose)
        now = int(time.time())
        file = FileRecord(
            id=file_id,
            bytes=incoming.bytes,
            created_at=now,
            filename=upload.filename,
            purpose=upload.purpose,
            expires_at=expiry(upload.purpose, now, upload.file_lifetime),
        )
        completed = _present(msgspec.structs.replace(upload, status="completed", file_id=file.id), file)
        answered = None if key is None else key.answered(completed)
        if not await storage.metadata.uploads.end(upload_id, "completed", file, answered):
            await _pending(storage, upload_id)
    await drop_parts(storage, upload_id)
    return completed


@router.post(
    "/{upload_id}/cancel",
    summary="Give an upload up",
    openapi_extra=described(answer=Upload, also=[400]),
)
async def cancel(request: Request, upload_id: str) -> Response:
    storage = host(request).storage
    upload = await _pending(storage, upload_id)
    if not await storage.metadata.uploads.end(upload_id, "cancelled"):
        await _pending(storage, upload_id)
    await drop_parts(storage, upload_id)
    return reply(_present(msgspec.structs.replace(upload, status="cancelled")))


async def _pending(storage: Storage, upload_id: str) -> UploadRecord:
    upload = await storage.metadata.uploads.get(upload_id)
    if upload is None:
        raise not_found(f"No such Upload object: {clip(upload_id)}", param="id")
    status = upload.status
    if status == "pending" and upload.expires_at <= time.time():
        status = "expired"
    if status != "pending":
        raise ApiError(400, f"The upload {upload_id} is {status}; only a pending upload can be changed.")
    return upload


async def _ordered_parts(storage: Storage, upload: UploadRecord, part_ids: list[str]) -> list[PartRecord]:
    known = {part.id: part for part in await storage.metadata.uploads.parts(upload.id)}
    for part_id in part_ids:
        if part_id not in known:
            # Parts are forgotten when the upload ends; then that is the reason.
            await _pending(storage, upload.id)
            message = f"The upload {upload.id} has no part '{clip(part_id)}'."
            raise ApiError(400, message, param="part_ids", code="invalid_value")
    if len(set(part_ids)) != len(part_ids):
        raise ApiError(400, "A part is named twice.", param="part_ids", code="invalid_value")
    parts = [known[part_id] for part_id in part_ids]
    total = sum(part.bytes for part in parts)
    if total != upload.bytes:
        message = f"The parts have {total:,} bytes together, but the upload was created for {upload.bytes:,}."
        raise ApiError(400, message, param="part_ids", code="invalid_value")
    return parts


async def _joined(storage: Storage, parts: list[PartRecord]) -> AsyncIterator[bytes]:
    for part in parts:
        async for chunk in storage.blobs.stream(part_blob(part.id)):
            yield chunk


async def _limited(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_PART_BYTES:
            message = f"The part is larger than the maximum of {MAX_PART_BYTES:,} bytes."
            raise too_large(message, param="data", code="part_too_large")
        yield chunk


def _present(record: UploadRecord, file: FileRecord | None = None) -> Upload:
    return Upload(
        id=record.id,
        bytes=record.bytes,
        created_at=record.created_at,
        expires_at=record.expires_at,
        filename=record.filename,
        purpose=record.purpose,
        status=record.status,
        file=present_file(file) if file else None,
    )
