"""How deep a value of JSON is nested, found without going as deep oneself. Pure."""

from __future__ import annotations

from typing import Any

#: Levels of what is rendered, encoded and compiled many times over; what people write has a few.
MOST_LEVELS = 100


def too_deep(value: Any, most: int = MOST_LEVELS) -> bool:
    level = [value]
    for _ in range(most + 1):
        if not level:
            return False
        level = [inner for each in level for inner in _inner(each)]
    return bool(level)


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
