"""What the simulated engine answers where a JSON schema is asked for: an instance drawn by a hash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_LARGEST = 100
#: Levels below which only what is required is there, so that a schema that refers to itself comes to an end.
_DEEPEST = 6
#: Levels below which there is nothing, required or not.
_BOTTOM = 24


def instance(schema: Any, draws: Iterator[int]) -> Any:
    """Of the keywords type, properties, enum, const, minimum, maximum, items, minItems, $ref (within the schema),
    anyOf, oneOf and allOf; others are not looked at. ``draws`` gives numbers from 0 to 255, as many as are asked for.
    """
    return _Drawing(schema, draws).of(schema, 0)


class _Drawing:
    def __init__(self, root: Any, draws: Iterator[int]) -> None:
        self._root = root
        self._draws = draws

    def of(self, schema: Any, level: int) -> Any:
        if not isinstance(schema, dict) or level > _BOTTOM:
            return None
        if "$ref" in schema:
            return self.of(self._target(schema["$ref"]), level + 1)
        for name in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(name), list) and schema[name]:
                several: list[Any] = schema[name]
                return self.of(several[-1 if level > _DEEPEST else 0], level + 1)
        if "const" in schema:
            return schema["const"]
        choices = schema.get("enum")
        if isinstance(choices, list) and choices:
            return choices[next(self._draws) % len(choices)]
        return self._typed(schema, level)

    def _typed(self, schema: dict[str, Any], level: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind == "object":
            return self._object(schema, level)
        if kind == "array":
            count = _number(schema.get("minItems"), 0 if level > _DEEPEST else 1)
            return [self.of(schema.get("items"), level + 1) for _ in range(min(int(count), _LARGEST))]
        if kind in ("integer", "number"):
            least = _number(schema.get("minimum"), 0)
            span = int(_number(schema.get("maximum"), least + _LARGEST) - least)
            return least + next(self._draws) % (max(span, 0) + 1)
        if kind == "boolean":
            return next(self._draws) % 2 == 0
        return f"simulated {next(self._draws)}" if kind == "string" else None

    def _object(self, schema: dict[str, Any], level: int) -> dict[str, Any]:
        properties, required = schema.get("properties"), schema.get("required")
        wanted = properties if isinstance(properties, dict) else {}
        if level > _DEEPEST:
            names = required if isinstance(required, list) else []
            wanted = {name: each for name, each in wanted.items() if name in names}
        return {name: self.of(each, level + 1) for name, each in wanted.items()}

    def _target(self, reference: Any) -> Any:
        node = self._root
        for part in filter(None, str(reference).removeprefix("#").split("/")):
            node = node.get(part) if isinstance(node, dict) else None
        return node


def _number(found: Any, usual: float) -> Any:
    return found if isinstance(found, int | float) and not isinstance(found, bool) else usual
