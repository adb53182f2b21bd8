"""Cutting the ``requests`` of a message batch's body apart as its bytes arrive, one of them in memory at a time. Pure.

The body is ``{"requests": [{...}, {...}]}``, RFC 8259. An element ends where its braces do; whether what it holds is
JSON is for its decoder to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from gristmill.wire.errors import ApiError, missing_parameter, too_large, wrong_type

_SPACE = b" \t\r\n"
_MAX_HEAD = 1024
# Atomic groups, whose like, possessive repetitions of groups, match too little in Python 3.11.0 to 3.11.4 (gh-106052).
_TEXT = rb'(?>[^"\\]*+(?:\\.[^"\\]*+)*)'
#: Up to the next byte that matters: a bracket, or the quote of a string that does not end here; and within a string.
_PLAIN = re.compile(rb'(?>[^"{}\[\]]*+(?:"%b"[^"{}\[\]]*+)*)' % _TEXT, re.DOTALL)
_IN_STRING = re.compile(_TEXT, re.DOTALL)
_HEAD = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*("%b")[ \t\r\n]*:[ \t\r\n]*(?=[^ \t\r\n])' % _TEXT, re.DOTALL)
_OPENING, _CLOSING = b"{[", b"}]"


class RequestArray:
    """``feed`` it chunks, get elements; ``finish`` where the body ends. Both raise the 400 for what is no such body."""

    def __init__(self, max_element_bytes: int) -> None:
        self._max_element_bytes = max_element_bytes
        #: Elements so far.
        self.count = 0
        self._read = self._head
        self._rest = b""
        self._element = bytearray()
        self._depth = 0
        self._in_string = False

    @property
    def held(self) -> int:
        """Bytes of the element that has not ended."""
        return len(self._element)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        data, position = self._rest + chunk, 0
        self._rest = b""
        while position < len(data):
            position, element = self._read(data, position)
            if element is not None:
                self.count += 1
                yield element

    def finish(self) -> None:
        if self._read != self._nothing:
            raise _no_json("it ends too early")

    # Each reads from a position and says how far it came, and which element that was the end of, if any.

    def _head(self, data: bytes, position: int) -> tuple[int, bytes | None]:
        found = _HEAD.match(data, position)
        if found is None:
            start = data[position:].lstrip(_SPACE)
            if start and not start.startswith(b"{"):
                raise ApiError(400, "The body must be a JSON object with the field 'requests'.")
            if start[1:].lstrip(_SPACE).startswith(b"}"):
                raise missing_parameter("requests")
            if len(start) > _MAX_HEAD:
                raise _no_json("it does not begin with the field 'requests'")
            self._rest = start
            return len(data), None
        try:
            name = msgspec.json.decode(found[1], type=str)
        except msgspec.DecodeError as error:
            raise _no_json(str(error)) from None
        if name != "requests":
            message = f"Unrecognized request argument supplied: {name[:200]}. A message batch has 'requests' only."
            raise ApiError(400, message, param=name[:200])
        if data[found.end()] != b"["[0]:
            raise wrong_type("requests", "an array", "something else")
        self._read = self._first
        return found.end() + 1, None

    def _first(self, data: bytes, position: int) -> tuple[int, bytes | None]:
        position = _skip(data, position)
        if data[position : position + 1] == b"]":
            raise ApiError(400, "Invalid 'requests': there must be at least one.", param="requests")
        return self._begin(data, position)

    def _begin(self, data: bytes, position: int) -> tuple[int, bytes | None]:
        position = _skip(data, position)
        if position == len(data):
            return position, None
        if data[position] != b"{"[0]:
            raise wrong_type(f"requests[{self.count}]", "an object", "something else")
        self._read = self._within
        return position, None

    def _within(self, data: bytes, position: int) -> tuple[int, bytes | None]:
        start = position
        while position < len(data):
            position = self._step(data, position)
            if self._depth == 0:
                self._take(data[start:position])
                element, self._element = bytes(self._element), bytearray()
                self._read = self._between
                return position, element
            if self._rest:
                break
        self._take(data[start:position])
        return len(data), None

    def _step(self, data: bytes, position: int) -> int:
        if self._in_string:
            position = _IN_STRING.match(data, position).end()  # type: ignore[union-attr]
            if position == len(data):
                return position
            if data[position] == b"\\"[0]:
                # Which byte it escapes is in the next chunk.
                self._rest = data[position:]
                return position
            self._in_string = False
            return position + 1
        position = _PLAIN.match(data, position).end()  # type: ignore[union-attr]
        if position == len(data):
            return position
        byte = data[position]
        if byte == b'"'[0]:
            self._in_string = True
        else:
            self._depth += 1 if byte in _OPENING else -1
        return position + 1

    def _take(self, piece: bytes) -> None:
        self._element += piece
        if len(self._element) > self._max_element_bytes:
            message = f"requests[{self.count}] is larger than the maximum of {self._max_element_bytes:,} bytes."
            raise too_large(message, param=f"requests[{self.count}]")

    def _between(self, data: bytes, position: int) -> tuple[int, bytes | None]:
        position = _skip(data, position)
        if position == len(data):
            return position, None
        if data[position] not in b",]":
            raise _no_json(f"after requests[{self.count - 1}] comes neither a comma nor the end of the array")
        self._read = self._begin if data[position] == b","[0] else self._end
        return position + 1, None

    def _end(self, data: bytes, position: int) -> tuple[int, bytes | None]:
        position = _skip(data, position)
        if position == len(data):
            return position, None
        if data[position] == b","[0]:
            raise ApiError(400, "Unrecognized request argument after 'requests': a message batch has nothing else.")
        if data[position] != b"}"[0]:
            raise _no_json("the object does not end after 'requests'")
        self._read = self._nothing
        return position + 1, None

    def _nothing(self, data: bytes, position: int) -> tuple[int, bytes | None]:
        if _skip(data, position) < len(data):
            raise _no_json("there is something after its end")
        return len(data), None


def _skip(data: bytes, position: int) -> int:
    while position < len(data) and data[position] in _SPACE:
        position += 1
    return position


def _no_json(why: str) -> ApiError:
    return ApiError(400, f"We could not parse the JSON body of your request: {why}.")
