"""Looking at an input file before it is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from gristmill.batches.input_reader import Limits
from gristmill.batches.lines import lines_of
from gristmill.inference.endpoints import ENDPOINTS
from gristmill.user_error import UserError


class _Url(msgspec.Struct):
    url: str | None = None


def check_readable(path: Path) -> None:
    """Raises UserError where the file is not there to be read."""
    if not path.exists():
        raise UserError(f"There is no file {path}: check the name.")
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a JSONL file.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def first_endpoint(path: Path) -> str:
    """The endpoint that the first line asks for; chat completions where that cannot be told."""
    first = next(lines_of(path, Limits().max_line_bytes), None)
    if first is not None and first.data is not None:
        try:
            url = msgspec.json.decode(first.data, type=_Url).url
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            url = None
        if url in ENDPOINTS:
            return url
    return "/v1/chat/completions"


def read_defaults(path: Path | None) -> dict[str, Any] | None:
    """Body parameters for lines that do not set them, from a JSON file. Raises UserError."""
    if path is None:
        return None
    check_readable(path)
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} must hold one JSON object of body parameters: {error}.") from None
