from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.batches.lines import BOM, Line, LineSplitter

#: Small pieces that make all the cases likely: line ends, blanks, marks, and text around the limit of 8 bytes.
PIECES = (
    b"\n",
    b"\r\n",
    b"\r",
    b" ",
    b"\t",
    BOM,
    b"a",
    b"bc",
    b"12345678",
    b"\xff",
    b"\0",
    b"\xe2\x80\xa8",
    b"        ",
)
files = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)
LIMIT = 8


def split(chunks: list[bytes], limit: int = LIMIT) -> list[Line]:
    splitter = LineSplitter(limit)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.finish()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(marks)]


def naive(data: bytes, limit: int) -> list[Line]:
    """What the lines are, told with the whole file in memory."""
    lines, offset = [], 0
    for number, raw in enumerate(data.split(b"\n"), start=1):
        mark = len(BOM) if number == 1 and raw.startswith(BOM) else 0
        text = raw[mark:].removesuffix(b"\r")
        if len(text) > limit and text.strip():
            lines.append(Line(number, offset, len(raw), None))
        elif text.strip():
            lines.append(Line(number, offset + mark, len(text), text))
        offset += len(raw) + 1
    return lines


@given(files, st.lists(st.integers(0, 10_000), max_size=20))
@example(b"12345678\r\n", [9])
@example(BOM + b"12345678\r\n", [11])
@example(b" " * 30 + b"\na", [5, 10, 15, 20, 25])
@example(BOM + b" " * 30, [2, 3, 4])
def test_any_chunking_gives_the_lines_of_the_whole_file(data: bytes, places: list[int]) -> None:
    assert split(cut(data, places)) == split([data]) == naive(data, LIMIT)


@given(files)
def test_one_byte_at_a_time_gives_the_lines_of_the_whole_file(data: bytes) -> None:
    assert split([data[index : index + 1] for index in range(len(data))]) == naive(data, LIMIT)


@given(files)
def test_offsets_and_lengths_index_the_bytes_of_the_file(data: bytes) -> None:
    for line in split([data], limit=1_000):
        assert data[line.offset : line.offset + line.length] == line.data
        assert line.number == data[: line.offset].count(b"\n") + 1


@given(files)
def test_no_line_is_lost_but_blank_ones(data: bytes) -> None:
    text = data.removeprefix(BOM)
    expected = [number for number, raw in enumerate(text.split(b"\n"), start=1) if raw.strip()]
    assert [line.number for line in split([data])] == expected


def test_a_line_of_any_length_is_read_in_the_memory_of_a_chunk() -> None:
    splitter = LineSplitter(1_000)
    for _ in range(10_000):
        assert splitter.feed(b"x" * 10_000) == []
        assert len(splitter._rest) <= 1_004
    assert splitter.feed(b"\nnext\n") == [Line(1, 0, 100_000_000, None), Line(2, 100_000_001, 4, b"next")]
