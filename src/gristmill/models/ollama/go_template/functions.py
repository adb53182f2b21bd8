"""The functions that templates call: Go's own, by its rules (https://pkg.go.dev/text/template#hdr-Functions)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gristmill.models.ollama.go_template.lexer import TemplateError
from gristmill.models.ollama.go_template.values import (
    JsonList,
    JsonMap,
    NameList,
    Struct,
    formatted,
    is_true,
    kind,
    to_json,
)

Function = Callable[..., Any]

#: Of one text: a template that doubles a text again and again comes to its end here.
MOST_CHARACTERS = 64 * 2**20
_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d+)?(?:\.(?P<precision>\d*))?(?P<verb>.)", re.DOTALL)
_WIDEST = 10_000
_QUOTED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", '"': '\\"'}


def _length(value: Any) -> int:
    if isinstance(value, str):
        # Go counts bytes.
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list | dict):
        return len(value)
    raise TemplateError(f"len of {_named(value)}")


def _index(value: Any, *places: Any) -> Any:
    for place in places:
        value = _item(value, place)
    return value


def _item(value: Any, place: Any) -> Any:
    if isinstance(value, dict):
        if not isinstance(place, str):
            raise TemplateError(f"the index {_named(place)} of a map")
        return value.get(place)
    if isinstance(value, str):
        value = list(value.encode("utf-8", "surrogatepass"))
    if not isinstance(value, list):
        raise TemplateError(f"index of {_named(value)}")
    if kind(place) != "int":
        raise TemplateError(f"the index {_named(place)}")
    if not 0 <= place < len(value):
        raise TemplateError(f"the index {place} of {len(value)} values")
    return value[place]


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, str | list):
        raise TemplateError(f"slice of {_named(value)}")
    if len(bounds) > 2 or any(kind(bound) != "int" for bound in bounds):
        raise TemplateError("slice with other bounds than one or two whole numbers")
    content = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    begin = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(content)
    if not 0 <= begin <= end <= len(content):
        raise TemplateError(f"slice from {begin} to {end} of {len(content)}")
    part = content[begin:end]
    # A part of a list is a list of the same kind.
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else type(value)(part)


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("eq with nothing to compare with")
    return any(_same(first, other) for other in others)


def _same(one: Any, other: Any) -> bool:
    kinds = {kind(one), kind(other)}
    if len(kinds) > 1:
        if "nil" in kinds:
            return False
        raise _incomparable(one, other)
    if kinds & {"list", "map"}:
        raise _incomparable(one, other)
    # Messages are pointers in Ollama: each is the same as itself alone.
    return one is other if isinstance(one, Struct) else bool(one == other)


def _less(one: Any, other: Any) -> bool:
    kinds = {kind(one), kind(other)}
    if len(kinds) > 1 or not kinds <= {"int", "float", "string"}:
        raise _incomparable(one, other)
    return bool(one < other)


def _incomparable(one: Any, other: Any) -> TemplateError:
    return TemplateError(f"{_named(one)} is compared with {_named(other)}")


def _named(value: Any) -> str:
    return "nil" if value is None else f"a {kind(value)}"


def _print(*values: Any) -> str:
    """A space between two neighbours neither of which is a string."""
    text, previous = "", ""
    for value in values:
        gap = " " if text and not isinstance(previous, str) and not isinstance(value, str) else ""
        text += gap + formatted(value)
        previous = value
    return text


def _print_line(*values: Any) -> str:
    return " ".join(map(formatted, values)) + "\n"


def _printf(form: Any, *values: Any) -> str:
    if not isinstance(form, str):
        raise TemplateError("printf without a format")
    left = list(values)
    text, at = [], 0
    for found in _VERB.finditer(form):
        text.append(form[at : found.start()])
        at = found.end()
        if found["verb"] == "%":
            text.append("%")
            continue
        if not left:
            raise TemplateError(f"printf with fewer values than {form!r} asks for")
        text.append(_verb(found, left.pop(0)))
    rest = form[at:]
    if left or "%" in rest:
        raise TemplateError(f"printf with other values than {form!r} asks for")
    whole = "".join([*text, rest])
    if len(whole) > MOST_CHARACTERS:
        raise TemplateError(f"a text of more than {MOST_CHARACTERS:,} characters")
    return whole


def _verb(found: re.Match[str], value: Any) -> str:
    flags, verb, precision = found["flags"], found["verb"], found["precision"]
    width = int(found["width"] or 0)
    if width > _WIDEST or len(precision or "") > 4:
        raise TemplateError(f"printf with {found[0]!r}")
    digits = None if precision is None else int(precision or 0)
    text = _written(verb, value, digits, flags)
    if text is None:
        raise TemplateError(f"printf with {found[0]!r} for {_named(value)}")
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and kind(value) in ("int", "float"):
        return text.zfill(width)
    return text.rjust(width)


def _written(verb: str, value: Any, digits: int | None, flags: str) -> str | None:
    """None for what this does not write as Go does."""
    known = kind(value)
    plus = "+" if "+" in flags and known in ("int", "float") and value >= 0 else ""
    match verb:
        case "v" if "#" not in flags and digits is None:
            return plus + formatted(value)
        case "s" if _is_text(value) and "#" not in flags:
            return formatted(value) if digits is None else formatted(value)[:digits]
        case "d" if known == "int" and digits is None:
            return f"{plus}{value}"
        case "t" if known == "bool":
            return formatted(value)
        case "q" if known == "string" and not flags.strip("-0"):
            return quoted(value)
        case "f" if known == "float":
            return f"{plus}{value:.{6 if digits is None else digits}f}"
        case "x" if known == "int" and not flags.strip("-0"):
            return f"{value:x}"
        case "c" if known == "int" and 0 <= value < 0x110000:
            return chr(value)
    return None


def _is_text(value: Any) -> bool:
    """Whether all that it prints is strings, or what turns into one by itself."""
    if isinstance(value, list) and not isinstance(value, JsonList | NameList):
        return all(map(_is_text, value))
    return isinstance(value, str | JsonList | NameList | JsonMap) or (isinstance(value, Struct) and bool(value.text))


def quoted(text: str) -> str:
    """As a Go string is written."""
    return '"' + "".join(map(_quoted_character, text.replace("\\", "\\\\"))) + '"'


def _quoted_character(character: str) -> str:
    if character in _QUOTED:
        return _QUOTED[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


#: ``and`` and ``or`` are not among them: they do not evaluate all of their arguments.
BUILTINS: dict[str, Function] = {
    "not": lambda value: not is_true(value),
    "len": _length,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": _print_line,
    "printf": _printf,
    "eq": _equal,
    "ne": lambda one, other: not _same(one, other),
    "lt": _less,
    "le": lambda one, other: _less(one, other) or _same(one, other),
    "gt": lambda one, other: not _less(one, other) and not _same(one, other),
    "ge": lambda one, other: not _less(one, other),
    "json": to_json,
}
LAZY = frozenset({"and", "or"})
