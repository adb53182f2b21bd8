"""Multipart forms, streamed: one file goes straight to where it is kept, whatever the order of the fields."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gristmill.wire.errors import ApiError, clip, missing_parameter, string_too_long, too_large
from gristmill.wire.files import MAX_FILENAME

T = TypeVar("T")

#: Of everything in a form but its file: fields, headers of parts, what stands before and after.
MAX_FORM_BYTES = 256 * 1024
_MAX_FIELD_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 16 * 1024
_MAX_BOUNDARY_BYTES = 256

#: Takes the file's bytes, returns whatever the caller wants to know about them.
Sink = Callable[[AsyncIterator[bytes]], Awaitable[T]]


class Form(NamedTuple, Generic[T]):
    """Text fields by name; the file's name, and what the sink returned for it."""

    fields: dict[str, str]
    filename: str
    file: T


class _Begin(NamedTuple):
    name: str
    filename: str | None


class _Data(NamedTuple):
    data: bytes


class _End(NamedTuple):
    pass


_Event = _Begin | _Data | _End


async def read_form(request: Request, file_field: str, sink: Sink[T]) -> Form[T]:
    """Read the whole form; the part ``file_field`` is streamed into ``sink``. Raises ApiError 400."""
    events = _Events(request)
    fields: dict[str, str] = {}
    filename = ""
    received: list[T] = []
    while (event := await events.next()) is not None:
        if not isinstance(event, _Begin):
            continue
        if event.name == file_field and not received:
            filename = event.filename or "upload"
            if len(filename) > MAX_FILENAME:
                raise string_too_long(file_field, "the filename", len(filename), MAX_FILENAME)
            received.append(await sink(events.file()))
        else:
            fields[event.name] = await _text(event.name, events.part())
    if not received:
        raise missing_parameter(file_field)
    return Form(fields, filename, received[0])


async def _text(name: str, chunks: AsyncIterator[bytes]) -> str:
    value = bytearray()
    async for chunk in chunks:
        value += chunk
        if len(value) > _MAX_FIELD_BYTES:
            raise ApiError(400, f"The form field '{clip(name)}' is too long.", param=clip(name), code="invalid_value")
    return value.decode("utf-8", "replace")


class _Events:
    """The parser's callbacks as a stream of events, pulled from the request as they are needed."""

    def __init__(self, request: Request) -> None:
        self._stream = request.stream()
        self._events: deque[_Event] = deque()
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._complete = False
        self._form_bytes = 0
        self._parser = MultipartParser(
            _boundary(request),
            callbacks={
                "on_part_begin": self._headers.clear,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": lambda data, start, end: self._events.append(_Data(data[start:end])),
                "on_part_end": lambda: self._events.append(_End()),
                "on_end": self._on_end,
            },
        )

    async def next(self) -> _Event | None:
        """None at the end of a complete form; a form that is cut off is an error."""
        while not self._events:
            chunk = await anext(self._stream, b"")
            if not chunk:
                if self._complete:
                    return None
                raise ApiError(400, "The multipart form ended too early: its closing boundary is missing.")
            self._form_bytes += len(chunk)
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise ApiError(400, f"We could not parse the multipart form: {error}.") from None
            self._check_size()
        return self._events.popleft()

    async def file(self) -> AsyncIterator[bytes]:
        """The data of a part that is a file: it does not count as the form's own."""
        async for data in self.part():
            self._form_bytes -= len(data)
            yield data

    async def part(self) -> AsyncIterator[bytes]:
        """The data of the part whose beginning was the last event."""
        while isinstance(event := await self.next(), _Data):
            yield event.data

    def _check_size(self) -> None:
        """Data that is still to be taken may be the file's, but is never more than one chunk of the request."""
        if (
            self._form_bytes - sum(len(event.data) for event in self._events if isinstance(event, _Data))
            > MAX_FORM_BYTES
        ):
            raise too_large(f"The form has more than {MAX_FORM_BYTES:,} bytes besides its file.")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check_headers()

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_headers()

    def _check_headers(self) -> None:
        if len(self._field) + len(self._value) > _MAX_HEADER_BYTES:
            raise ApiError(400, "A header in the multipart form is too long.")

    def _on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        self._events.append(_Begin(name, filename.decode("utf-8", "replace") if filename is not None else None))

    def _on_end(self) -> None:
        self._complete = True


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > _MAX_BOUNDARY_BYTES:
        message = "This endpoint takes a multipart/form-data body with a boundary of at most 256 bytes."
        raise ApiError(400, message, code="unsupported_content_type")
    return boundary
