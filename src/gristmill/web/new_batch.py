"""``/new``: a JSONL file becomes a batch. The same upload, with the same checks, as through the API."""

from __future__ import annotations

import time
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gristmill.batches.incoming import IncomingFile, expiry, new_file_id
from gristmill.batches.lines import LineSplitter
from gristmill.batches.scoped_host import ScopedHost
from gristmill.multipart_form import Form, read_form
from gristmill.storage.records import FileRecord, file_blob
from gristmill.web.headers import SECURITY_HEADERS
from gristmill.web.page import page
from gristmill.web.visitor import host
from gristmill.wire.batch import CreateBatchRequest
from gristmill.wire.errors import ApiError, clip
from gristmill.wire.json import encode

router = APIRouter(prefix="/new")

#: In which the first line that is not blank is looked for.
_LOOKED_AT = 1024 * 1024
WINDOWS = (("24h", "a day"), ("7d", "a week"), ("30d", "30 days"), ("90d", "90 days"), ("366d", "a year"))
PRIORITIES = (("0", "normal"), ("2", "higher"), ("5", "highest"), ("-2", "lower"), ("-5", "lowest"))


class _FirstLine(msgspec.Struct):
    url: str


@router.get("")
async def form(request: Request) -> Response:
    return _form(host(request), {}, None)


@router.post("")
async def create(request: Request) -> Response:
    mine = host(request)
    file_id, fields = new_file_id(), dict[str, str]()
    room = await mine.storage.metadata.files.room()
    try:
        async with mine.storage.new_blobs.begin(file_blob(file_id)) as write:
            incoming = IncomingFile(write, room)
            sent = await read_form(request, "file", incoming.receive)
            fields = sent.fields
            incoming.check("batch")
            asked = await _asked(mine, sent, incoming, file_id)
            mine.batches.endpoint(asked.endpoint)
            now = int(time.time())
            record = FileRecord(file_id, incoming.bytes, now, sent.filename, "batch", expiry("batch", now, None))
            await mine.storage.metadata.files.add(record)
        try:
            batch = await mine.batches.create(asked)
        except BaseException:
            await mine.storage.metadata.files.delete(file_id)
            raise
    except ApiError as error:
        if error.status >= 500:
            raise
        return _form(mine, fields, error)
    return RedirectResponse(f"/batches/{quote(batch.id)}", 303, SECURITY_HEADERS)


async def _asked(
    mine: ScopedHost, sent: Form[IncomingFile], incoming: IncomingFile, file_id: str
) -> CreateBatchRequest:
    fields = sent.fields
    line = incoming.first_line or await _first_line(mine, file_id, incoming.bytes)
    priority = fields.get("priority", "0")
    if priority not in dict(PRIORITIES):
        raise ApiError(400, f"There is no priority '{clip(priority)}'.", param="priority", code="invalid_value")
    name = fields.get("name", "").strip() or sent.filename
    model = fields.get("model", "")
    return CreateBatchRequest(
        file_id,
        _endpoint(line),
        fields.get("window", WINDOWS[0][0]),
        # A file name may be as long as the disk allows, a value of metadata may not.
        metadata={"name": msgspec.Raw(encode(name[:200]))},
        defaults={"model": model} if model else None,
        priority=int(priority),
    )


def _endpoint(line: bytes) -> str:
    """That of the first line; whether the others have the same is checked when they are read."""
    try:
        return msgspec.json.decode(line, type=_FirstLine).url
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = (
            "The first line does not say which endpoint it is for. Each line is one request, such as "
            '{"custom_id": "row-1", "method": "POST", "url": "/v1/chat/completions", "body": {...}}.'
        )
        raise ApiError(400, message, param="url", code="missing_required_parameter") from None


async def _first_line(mine: ScopedHost, file_id: str, size: int) -> bytes:
    """Of a file that begins with blank lines."""
    data = await mine.storage.blobs.read(file_blob(file_id), 0, min(size, _LOOKED_AT))
    splitter = LineSplitter(_LOOKED_AT)
    lines = splitter.feed(data) or splitter.finish()
    return (lines[0].data or b"") if lines else b""


def _form(mine: ScopedHost, fields: dict[str, str], error: ApiError | None) -> Response:
    return page(
        "new_batch",
        status=200 if error is None else error.status,
        here="new",
        fields=fields,
        error=error.body.message if error is not None else "",
        models=list(mine.dispatcher.models),
        windows=WINDOWS,
        priorities=PRIORITIES,
    )
