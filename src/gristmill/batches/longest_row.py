"""How much context the longest line of an input file needs: an estimate from its length, before any engine is up."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gristmill.batches.lines import lines_of

#: Few tokenizers make shorter tokens of plain text; JSON's own characters are counted along.
_CHARS_PER_TOKEN = 3.5


class _OutputLimits(msgspec.Struct):
    max_completion_tokens: int | None = None
    max_tokens: int | None = None


class _LimitedLine(msgspec.Struct):
    body: _OutputLimits


def longest_row_tokens(path: Path, shared_bytes: int = 0, default_output: int = 0) -> int:
    """Prompt and answer together, about. ``shared_bytes``: what every row has besides its line; ``default_output``:
    answer tokens where the longest line sets no limit."""
    longest = max(lines_of(path, 2**31), key=lambda line: line.length, default=None)
    if longest is None:
        return 0
    limit = _output_limit(longest.data or b"")
    return round((longest.length + shared_bytes) / _CHARS_PER_TOKEN) + (limit or default_output)


def _output_limit(line: bytes) -> int | None:
    try:
        body = msgspec.json.decode(line, type=_LimitedLine).body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # What is wrong with the line is for the batch's validation to say.
        return None
    return body.max_completion_tokens or body.max_tokens
