"""What is stored of a batch's rows: plain typed records, independent of any database."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Row(NamedTuple):
    """Where one request stands in the input file: ``line`` counts from 1, ``offset`` and ``length`` are bytes."""

    line: int
    custom_id: str
    offset: int
    length: int


class PendingRow(NamedTuple):
    """A row to run; ``place`` is where it stands in the order to run in."""

    place: int
    row: Row


class Follower(NamedTuple):
    """A row that is answered with the answer of another, which asks the same."""

    line: int
    custom_id: str


class Result(NamedTuple):
    """One row's outcome; ``payload`` is its finished line of the output or error file, without the newline."""

    line: int
    succeeded: bool
    payload: bytes
    prompt_tokens: int = 0
    cached_tokens: int | None = 0
    completion_tokens: int = 0
    reused: bool = False


class ErrorRow(NamedTuple):
    """A row of the error file: a stored failure, or (payload None) a row that never ran."""

    line: int
    custom_id: str
    payload: bytes | None


#: None yet: waiting.
RowOutcome = Literal["succeeded", "failed", "waiting"]


class RowFilter(NamedTuple):
    """Which rows are looked at: all, or those with the ``custom_id``, or whose custom_id begins so (``prefix``), or
    with the ``outcome``: succeeded, failed, or none yet ("waiting")."""

    custom_id: str | None = None
    prefix: bool = False
    outcome: RowOutcome | None = None


class SeenRow(NamedTuple):
    """A row with its result as far as it has one: ``succeeded`` and ``payload`` are None while it waits."""

    row: Row
    succeeded: bool | None
    payload: bytes | None


class ResultPlace(NamedTuple):
    """A line of a result file, the output file or the error file: the request at ``line`` of the input, which begins at
    ``input_offset`` there, has its result at ``offset`` of the file; in bytes."""

    succeeded: bool
    line: int
    offset: int
    input_offset: int
