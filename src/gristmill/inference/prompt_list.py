"""What a request gives one of or several: texts, or lists of token ids."""

from __future__ import annotations

from typing import Any

from gristmill.wire.errors import ApiError


def each_of(given: str | list[Any], param: str) -> list[str] | list[list[int]]:
    """One or several texts, or one or several lists of token ids. Raises ApiError for what is neither."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise ApiError(400, f"The '{param}' is an empty list.", param=param, code="invalid_value")
    if all(_is_token_id(token) for token in given):
        return [given]
    texts = all(isinstance(part, str) for part in given)
    if texts or all(isinstance(part, list) and part and all(map(_is_token_id, part)) for part in given):
        return list(given)
    text = (
        f"Invalid type for '{param}': expected a string, an array of strings, or an array of token ids "
        "(0 to 2147483647)."
    )
    raise ApiError(400, text, param=param, code="invalid_type")


def _is_token_id(found: Any) -> bool:
    # JSON has integers of any size, and engines take them as machines do. A boolean is an integer to Python alone.
    return type(found) is int and 0 <= found < 2**31
