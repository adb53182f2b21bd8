from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.api.byte_range import ByteRange, Unsatisfiable, parse_range

sizes = st.integers(0, 2**40)
headers = st.text("bytes=0123456789-, ", max_size=30) | st.builds("bytes={}-{}".format, sizes, sizes)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", ByteRange(0, 10)),
        ("bytes=5-", ByteRange(5, 100)),
        ("bytes=-10", ByteRange(90, 100)),
        ("bytes=-1000", ByteRange(0, 100)),
        ("bytes=99-99", ByteRange(99, 100)),
        ("bytes=0-1000000", ByteRange(0, 100)),
        (" bytes=0-9 ", ByteRange(0, 10)),
    ],
)
def test_a_range_is_cut_to_the_file(header: str, expected: ByteRange) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=-", "bytes=9-5", "bytes=0-1,5-6", "lines=0-9", "bytes=a-b", "bytes", "bytes=0-" + "9" * 200],
)
def test_what_is_no_single_range_means_the_whole_file(header: str | None) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=200-300", 100), ("bytes=-0", 100), ("bytes=0-", 0)]
)
def test_a_range_outside_the_file_cannot_be_satisfied(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, size)


@given(headers, sizes)
def test_a_range_is_never_empty_and_never_outside_the_file(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except Unsatisfiable:
        return
    assert found is None or 0 <= found.start < found.end <= size
