"""How much context the longest line of an input file needs: an estimate from its length, before any engine is up."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gristmill.batches.lines import LineSplitter

#: Few tokenizers make shorter tokens of plain text; JSON's own characters are counted along.
_CHARS_PER_TOKEN = 3.5
_CHUNK = 4 * 1024 * 1024


class _Limits(msgspec.Struct):
    max_completion_tokens: int | None = None
    max_tokens: int | None = None


class _Line(msgspec.Struct):
    body: _Limits


def longest_row_tokens(path: Path, shared_bytes: int = 0, default_output: int = 0) -> int:
    """Prompt and answer together, about. ``shared_bytes``: what every row has besides its line; ``default_output``:
    answer tokens where the longest line sets no limit."""
    splitter, longest, data = LineSplitter(2**31), 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for line in splitter.feed(chunk):
                if line.length > longest:
                    longest, data = line.length, line.data or b""
    for line in splitter.finish():
        if line.length > longest:
            longest, data = line.length, line.data or b""
    return round((longest + shared_bytes) / _CHARS_PER_TOKEN) + (_output_limit(data) or default_output)


def _output_limit(line: bytes) -> int | None:
    try:
        body = msgspec.json.decode(line, type=_Line).body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # What is wrong with the line is for the batch's validation to say.
        return None
    return body.max_completion_tokens or body.max_tokens
