"""The result files of a batch that has ended: their lines, from any place in them, and the requests they answer.

The database has forgotten the rows by then. A few places in the files are remembered (``ResultPlace``, one for some
thousand rows), and every line carries an id made of its number: by both, a line is found without reading the rest.
"""

from __future__ import annotations

import bisect
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from gristmill.batches.lines import LineSplitter
from gristmill.batches.output_lines import stable_id
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, FileRecord, file_blob
from gristmill.storage.row_records import ResultPlace
from gristmill.wire.json import encode_ascii

#: How every line begins: ``output_lines`` writes its fields in this order.
_BEGIN = b'{"id":"batch_req_'
_ID_END = len(_BEGIN) + 32
#: Read at a time where a page is wanted, and where something is looked for.
PAGE_BYTES, SEARCH_BYTES = 256 * 1024, 2 * 1024 * 1024
#: Numbers of lines tried for one line, some microseconds each.
_MOST_TRIES = 20_000


class FileLine(NamedTuple):
    """A line at ``offset``, in bytes; ``after`` is where the next one begins."""

    offset: int
    data: bytes
    after: int


class FilePart(NamedTuple):
    """``after`` is where the line behind these begins."""

    lines: list[FileLine]
    after: int


def custom_id_field(custom_id: str, prefix: bool) -> bytes:
    """What stands in a line with the ``custom_id``, or with one that begins so."""
    escaped = encode_ascii(custom_id)
    return b'","custom_id":' + (escaped[:-1] if prefix else escaped)


def has_field(line: bytes, field: bytes) -> bool:
    """Whether the field that ``custom_id_field`` makes is where a line has it."""
    return line.startswith(field, _ID_END) if line.startswith(_BEGIN) else field in line


async def lines_from(
    storage: Storage, file: FileRecord, offset: int, chunk: int, containing: bytes | None = None
) -> AsyncIterator[FilePart]:
    """The file from ``offset`` on, where a line begins, a chunk at a time; without the lines of chunks that do not have
    ``containing`` in them. Raises BlobLost."""
    rest, begin = b"", min(max(offset, 0), file.bytes)
    async for piece in storage.blobs.stream(file_blob(file.id), begin, file.bytes, chunk):
        data = rest + piece
        end = data.rfind(b"\n") + 1
        rest, found = data[end:], []
        if containing is None or data.find(containing, 0, end) >= 0:
            found = _lines(data[:end], begin)
        begin += end
        yield FilePart(found, begin)
    if rest:
        yield FilePart([FileLine(begin, rest, file.bytes)], file.bytes)


def _lines(data: bytes, begin: int) -> list[FileLine]:
    found = []
    for line in data.split(b"\n")[:-1]:
        after = begin + len(line) + 1
        if line:
            found.append(FileLine(begin, line, after))
        begin = after
    return found


class LineNumbers:
    """Tells the numbers of lines of one file, best of one after another."""

    def __init__(self, batch_id: str, places: Sequence[ResultPlace]) -> None:
        """``places``: those of the file."""
        self._batch_id = batch_id
        self._places = places
        self._last: tuple[int, int] | None = None

    def of(self, line: FileLine) -> int | None:
        """None where it is not known."""
        if not self._places or not line.data.startswith(_BEGIN):
            return None
        wanted = line.data[len(_BEGIN) : _ID_END].decode("ascii", "replace")
        at = bisect.bisect_right(self._places, line.offset, key=lambda each: each.offset) - 1
        number = self._places[max(at, 0)].line
        if self._last is not None and self._last[0] < line.offset:
            number = max(number, self._last[1] + 1)
        for tried in range(number, number + _MOST_TRIES):
            if stable_id("", self._batch_id, tried) == wanted:
                self._last = (line.offset, tried)
                return tried
        return None


def offset_before(places: Sequence[ResultPlace], number: int) -> int:
    """In a file, whose places these are: where to begin to find what comes after line ``number`` of the input."""
    at = bisect.bisect_right(places, number, key=lambda each: each.line) - 1
    return places[at].offset if at >= 0 else 0


async def line_numbered(
    storage: Storage, batch_id: str, file: FileRecord, places: Sequence[ResultPlace], number: int
) -> FileLine | None:
    """The line of the request at line ``number`` of the input, if it is in ``file``, whose places these are."""
    at = bisect.bisect_right(places, number, key=lambda each: each.line) - 1
    if at < 0:
        return None
    wanted = _BEGIN + stable_id("", batch_id, number).encode()
    end = places[at + 1].offset if at + 1 < len(places) else file.bytes
    async for part in lines_from(storage, file, places[at].offset, PAGE_BYTES):
        for line in part.lines:
            if line.offset >= end:
                return None
            if line.data.startswith(wanted):
                return line
    return None


async def request_at(
    storage: Storage, batch: BatchRecord, places: Sequence[ResultPlace], number: int, most: int
) -> bytes | None:
    """Line ``number`` of the batch's input. None where it is not there any more, or where more than ``most`` bytes
    would have to be read to find it. Raises BlobLost."""
    file = await storage.metadata.files.get_kept(batch.input_file_id, batch.key_id)
    before = [each for each in places if each.line <= number]
    if file is None or not before:
        return None
    nearest = max(before, key=lambda each: each.line)
    splitter = LineSplitter(2**62)
    read = 0
    async for chunk in storage.blobs.stream(file_blob(file.id), nearest.input_offset, file.bytes, PAGE_BYTES):
        for line in splitter.feed(chunk):
            if line.number == number - nearest.line + 1:
                return line.data
        read += len(chunk)
        if read > most:
            return None
    last = splitter.finish()
    return last[0].data if last and last[0].number == number - nearest.line + 1 else None
