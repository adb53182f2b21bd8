"""Cutting a byte stream into numbered lines, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"
#: What a line may be longer than its content: a byte order mark and a carriage return.
_MARKS = len(BOM) + 1
_CHUNK = 4 * 1024 * 1024


class Line(NamedTuple):
    """A line of the input file: ``number`` counts from 1, ``offset`` and ``length`` are bytes without the line end.

    ``data`` is None where the line is longer than allowed; its bytes were not kept, ``length`` counts all of them.
    """

    number: int
    offset: int
    length: int
    data: bytes | None


def chunks_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file, some megabytes at a time, and an empty chunk as its end."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
    yield b""


def lines_of(path: Path, max_bytes: int = 2**62) -> Iterator[Line]:
    """The lines of a file that are not blank."""
    splitter = LineSplitter(max_bytes)
    for chunk in chunks_of(path):
        yield from splitter.feed(chunk) if chunk else splitter.finish()


class LineSplitter:
    """Feed it chunks, get lines. Blank lines are counted but not returned; a byte order mark is dropped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        #: Bytes of the unfinished line that were dropped because it is too long.
        self._dropped = 0
        self._dropped_blank = True
        self._offset = 0
        self._number = 0

    def feed(self, chunk: bytes) -> list[Line]:
        pieces = (self._rest + chunk).split(b"\n") if self._rest else chunk.split(b"\n")
        self._rest = pieces.pop()
        lines = []
        for piece in pieces:
            if (line := self._line(piece)) is not None:
                lines.append(line)
            self._offset += self._dropped + len(piece) + 1
            self._dropped = 0
            self._dropped_blank = True
        if len(self._rest) + self._dropped > self._max_bytes + _MARKS:
            self._dropped_blank = self._dropped_blank and self._blank(self._rest)
            self._dropped += len(self._rest)
            self._rest = b""
        return lines

    def finish(self) -> list[Line]:
        """The last line, if it has no line end."""
        if not self._rest and not self._dropped:
            return []
        line = self._line(self._rest)
        return [] if line is None else [line]

    def _line(self, piece: bytes) -> Line | None:
        self._number += 1
        offset, length = self._offset, self._dropped + len(piece)
        if self._blank(piece) and self._dropped_blank:
            return None
        if self._dropped:
            return Line(self._number, offset, length, None)
        if offset == 0 and piece.startswith(BOM):
            piece, offset = piece[len(BOM) :], len(BOM)
        if piece.endswith(b"\r"):
            piece = piece[:-1]
        if len(piece) > self._max_bytes:
            return Line(self._number, self._offset, length, None)
        return Line(self._number, offset, len(piece), piece)

    def _blank(self, piece: bytes) -> bool:
        if self._offset == 0 and not self._dropped:
            piece = piece.removeprefix(BOM)
        return not piece or piece.isspace()
