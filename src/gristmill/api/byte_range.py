"""The Range header, for one range (RFC 9110, section 14): enough to resume a download."""

from __future__ import annotations

import re
from typing import NamedTuple

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class ByteRange(NamedTuple):
    """From ``start`` up to, not including, ``end``."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """No byte of the file is in the range; answered with 416."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """None means the whole file: no header, or one that may be ignored. Raises Unsatisfiable."""
    found = _RANGE.fullmatch(header.strip()) if header and len(header) < 100 else None
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise Unsatisfiable
    return ByteRange(start, end)
