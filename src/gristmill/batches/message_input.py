"""From the body of a message batch to the lines of an input file like any other."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping

import msgspec

from gristmill.batches.input_reader import InputReader, Limits
from gristmill.batches.request_array import RequestArray
from gristmill.inference import messages
from gristmill.wire.errors import ApiError, clip, missing_parameter, too_large
from gristmill.wire.json import explain, one_line
from gristmill.wire.message_batches import MAX_REQUESTS, CustomId

#: All of Anthropic's.
MAX_BATCH_BYTES = 256 * 1024 * 1024
#: Of an id, in a set.
_ID_BYTES = 200


class _BatchedRequest(msgspec.Struct, forbid_unknown_fields=True):
    custom_id: CustomId
    params: dict[str, msgspec.Raw]


_CUSTOM_ID = re.compile("[a-zA-Z0-9_-]{1,64}")
_decoder = msgspec.json.Decoder(_BatchedRequest)
_PREFIX = b'","method":"POST","url":"%b","body":' % messages.PATH.encode()


class MessageInput:
    """``lines`` turns the body into lines as it arrives; then ``total`` is how many there are. Each is checked as the
    batch's own validation will: what would end all of the batch is refused at once."""

    def __init__(self, models: Mapping[str, str], limits: Limits) -> None:
        self._array = RequestArray(limits.max_line_bytes)
        self._reader = InputReader(messages.PATH, None, models, limits)
        self._ids: set[str] = set()
        self._bytes = 0

    @property
    def total(self) -> int:
        return self._array.count

    @property
    def held(self) -> int:
        """Bytes in memory, about."""
        return self._array.held + _ID_BYTES * len(self._ids)

    async def lines(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Raises ApiError."""
        async for chunk in body:
            self._bytes += len(chunk)
            if self._bytes > MAX_BATCH_BYTES:
                raise too_large(f"A message batch is at most {MAX_BATCH_BYTES:,} bytes long.", param="requests")
            lines = [self._line(element) for element in self._array.feed(chunk)]
            if lines:
                yield b"".join(lines)
        self._array.finish()

    def _line(self, element: bytes) -> bytes:
        place = f"requests[{self._array.count - 1}]"
        if self._array.count > MAX_REQUESTS:
            raise ApiError(400, f"Invalid 'requests': a batch has at most {MAX_REQUESTS:,}.", param="requests")
        custom_id, params = _decoded(element, place)
        if custom_id in self._ids:
            message = f"Invalid '{place}.custom_id': '{custom_id}' is a duplicate. It must be unique within a batch."
            raise ApiError(400, message, param=f"{place}.custom_id", code="duplicate_custom_id")
        self._ids.add(custom_id)
        line = b'{"custom_id":"' + custom_id.encode() + _PREFIX + one_line(params) + b"}\n"
        for _ in self._reader.feed(line):
            pass
        if self._reader.errors:
            error = self._reader.errors[0]
            name = (error.param or "body").replace("body", "params", 1)
            status = 404 if error.code == "model_not_found" else 400
            raise ApiError(status, f"{place}.{name}: {error.message}", param=f"{place}.{name}", code=error.code)
        return line


def _decoded(element: bytes, place: str) -> tuple[str, bytes]:
    """The id, and the params as they came."""
    try:
        element.decode()
        request = _decoder.decode(element)
    except msgspec.ValidationError as error:
        refusal = explain(str(error), _BatchedRequest)
        name = refusal.body.param or ""
        message = refusal.body.message.replace(f"'{name}'", f"'{place}.{name}'") if name else refusal.body.message
        if name == "custom_id" and "regex" in message:
            raise _bad_custom_id(place) from None
        raise ApiError(400, message, param=f"{place}.{name}" if name else place, code=refusal.body.code) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"We could not parse the JSON of {place}: {clip(str(error))}.", param=place) from None
    if _CUSTOM_ID.fullmatch(request.custom_id) is None:
        # To a pattern's ``$``, a line end may follow.
        raise _bad_custom_id(place)
    if "model" not in request.params:
        raise missing_parameter(f"{place}.params.model")
    return request.custom_id, msgspec.json.encode(request.params)


def _bad_custom_id(place: str) -> ApiError:
    message = f"Invalid '{place}.custom_id': it must match ^[a-zA-Z0-9_-]{{1,64}}$."
    return ApiError(400, message, param=f"{place}.custom_id", code="invalid_value")
