"""What the simulated engine answers where a JSON schema is asked for: an instance drawn by a hash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_LARGEST = 100


def instance(schema: Any, draws: Iterator[int]) -> Any:
    """Of the keywords type, properties, enum, const, minimum, maximum and items; others are not looked at. ``draws``
    gives numbers from 0 to 255, as many as are asked for."""
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("enum"):
        return choices[next(draws) % len(choices)]
    kind = schema.get("type")
    if kind == "object":
        return {name: instance(each, draws) for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema.get("items"), draws)]
    if kind in ("integer", "number"):
        least = schema.get("minimum", 0)
        return least + next(draws) % (int(schema.get("maximum", least + _LARGEST) - least) + 1)
    if kind == "boolean":
        return next(draws) % 2 == 0
    return f"simulated {next(draws)}" if kind == "string" else None
