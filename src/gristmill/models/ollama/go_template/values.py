"""Go's values in Python: nil is None; strings, booleans, numbers, lists and maps are Python's own; structs ``Struct``.

What a value prints as follows the package fmt (https://pkg.go.dev/fmt), as JSON the package encoding/json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from gristmill.models.ollama.go_template.lexer import TemplateError


class FieldTag(NamedTuple):
    """How a struct's field is written as JSON; ``optional``: left out where it is empty."""

    name: str
    optional: bool = False


class Struct:
    """A value with named fields, in Go's order. ``tags`` by field; without, JSON has the field's own name. ``methods``
    take no arguments. ``text``: what it prints as, where that is not Go's ``{a b c}``."""

    def __init__(
        self,
        fields: dict[str, Any],
        tags: dict[str, FieldTag] | None = None,
        text: Callable[[Struct], str] | None = None,
        methods: dict[str, Callable[[Struct], Any]] | None = None,
    ) -> None:
        self.fields = fields
        self.tags = tags or {}
        self.text = text
        self.methods = methods or {}


class OrderedMap(dict[str, Any]):
    """A map that keeps the order of its keys, as JSON, too."""


class JsonMap(dict[str, Any]):
    """A map that prints as its JSON. ``absent``: Go's nil map, which is null in the JSON of what holds it."""

    def __init__(self, content: dict[str, Any] | None = None) -> None:
        super().__init__(content or {})
        self.absent = content is None


class JsonList(list[Any]):
    """A list that prints as its JSON."""


class NilList(list[Any]):
    """Go's nil slice: it is as one that is empty, but null in JSON."""


class NameList(list[str]):
    """Names of types: one prints, and is written in JSON, as that alone."""


def kind(value: Any) -> str:
    """What the comparisons tell apart."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string"
    return "list" if isinstance(value, list) else "map" if isinstance(value, dict) else "struct"


def is_true(value: Any) -> bool:
    return True if isinstance(value, Struct) else bool(value)


def printed(value: Any) -> str:
    """As an action prints it."""
    return "<no value>" if value is None else formatted(value)


def formatted(value: Any) -> str:
    """As the verb %v does."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(value)
        case float():
            return number_text(value, 21)
        case JsonMap(absent=True):
            return "{}"
        case JsonMap() | JsonList():
            return to_json(value)
        case NameList():
            return value[0] if len(value) == 1 else f"[{' '.join(value)}]" if value else ""
        case list():
            return f"[{' '.join(map(formatted, value))}]"
        case dict():
            return f"map[{' '.join(f'{name}:{formatted(value[name])}' for name in sorted(value))}]"
        case Struct(text=text) if text is not None:
            return text(value)
        case Struct(fields=fields):
            return f"{{{' '.join(map(formatted, fields.values()))}}}"
    raise TemplateError(f"a value of the type {type(value).__name__}")


def number_text(value: float, most: int) -> str:
    """The shortest digits that are this number; with an exponent of two digits below -4 and from ``most`` on."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    sign, digits, power = _digits(value)
    if -4 <= power < most:
        return sign + _plain(digits, power)
    return f"{sign}{_mantissa(digits)}e{'-' if power < 0 else '+'}{abs(power):02}"


def _digits(value: float) -> tuple[str, str, int]:
    """Sign, digits, and the power of ten that the first of them counts."""
    negative, digits, exponent = Decimal(repr(value)).as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    power = len(text) + exponent - 1 if value else 0
    return "-" if negative else "", text.rstrip("0") or "0", power


def _mantissa(digits: str) -> str:
    return f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits


def _plain(digits: str, power: int) -> str:
    if power < 0:
        return f"0.{'0' * (-power - 1)}{digits}"
    whole, rest = digits[: power + 1].ljust(power + 1, "0"), digits[power + 1 :]
    return f"{whole}.{rest}" if rest else whole


#: What encoding/json escapes besides what it must: its texts may be put into HTML.
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def to_json(value: Any) -> str:
    """As ``json.Marshal`` writes it: no spaces, maps by their keys."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _json_number(value)
        case str():
            plain = json.dumps(value, ensure_ascii=False)
            return "".join(_ESCAPED.get(character, character) for character in plain)
        case NilList():
            return "null"
        case NameList():
            return to_json(value[0]) if len(value) == 1 else to_json(list(value))
        case list():
            return f"[{','.join(map(to_json, value))}]"
        case JsonMap(absent=True):
            return "null"
        case OrderedMap():
            return f"{{{','.join(f'{to_json(name)}:{to_json(value[name])}' for name in value)}}}"
        case dict():
            return f"{{{','.join(f'{to_json(name)}:{to_json(value[name])}' for name in sorted(value))}}}"
        case Struct():
            return _struct_json(value)
    raise TemplateError(f"a value of the type {type(value).__name__} as JSON")


def _struct_json(value: Struct) -> str:
    parts = []
    for name, content in value.fields.items():
        tag = value.tags.get(name, FieldTag(name))
        if tag.optional and not isinstance(content, Struct) and not content:
            continue
        parts.append(f"{to_json(tag.name)}:{to_json(content)}")
    return f"{{{','.join(parts)}}}"


def _json_number(value: float) -> str:
    if not math.isfinite(value):
        raise TemplateError("a number that JSON has not")
    sign, digits, power = _digits(value)
    # An exponent of as many digits as it takes, unlike elsewhere.
    if -6 <= power < 21:
        return sign + _plain(digits, power)
    return f"{sign}{_mantissa(digits)}e{'-' if power < 0 else '+'}{abs(power)}"
