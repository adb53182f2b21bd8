"""Why rows failed, in groups: errors that differ only in a number or a quoted text have one cause. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from gristmill.batches.results.row_view import RowError

#: Of a message; what comes later differs by what the engine was given.
_COMPARED = 300
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
#: Ids and hashes have digits among their letters.
_NUMBERED = re.compile(r"\b(?=\w*\d)[\w.,:/+-]*\w")


class Cause(NamedTuple):
    """``key`` names it in an address; ``title`` is the message without what differs from row to row."""

    key: str
    status: int | None
    code: str
    title: str


def cause_of(error: RowError) -> Cause:
    title = _NUMBERED.sub("…", _QUOTED.sub("'…'", error.message[:_COMPARED])).strip()
    said = f"{error.status}\0{error.code}\0{title}".encode("utf-8", "replace")
    return Cause(hashlib.blake2b(said, digest_size=6).hexdigest(), error.status, error.code, title)
