"""Which model a batch asks for, as its first line says: to know whose it is before the whole of it is read."""

from __future__ import annotations

import msgspec

from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, file_blob

#: A first line that is longer is left to whoever reads the whole.
_LOOKED_AT = 1024 * 1024


class _Body(msgspec.Struct):
    model: str | None = None


class _Line(msgspec.Struct):
    body: _Body | None = None


_decoder = msgspec.json.Decoder(_Line)


async def first_model(storage: Storage, batch: BatchRecord) -> str | None:
    """None where it cannot be told so easily. Raises what storage raises."""
    file = await storage.metadata.files.get_kept(batch.input_file_id, batch.key_id)
    if file is None:
        return None
    data = await storage.blobs.read(file_blob(file.id), 0, min(file.bytes, _LOOKED_AT))
    lines = data.removeprefix(b"\xef\xbb\xbf").lstrip().splitlines()
    try:
        body = _decoder.decode(lines[0]).body if lines else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    default = (batch.defaults or {}).get("model")
    found = (body.model if body is not None else None) or default
    return found if isinstance(found, str) else None
