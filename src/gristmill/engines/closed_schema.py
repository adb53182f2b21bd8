"""JSON schemas for decoding: objects whose properties are given have no others. Pure.

By the rules of JSON Schema, an object may have any property that ``additionalProperties`` does not exclude, and
pydantic and most people leave it out. A model that may go on with properties of its own often does, until it is cut
off. So they are left out when decoding, as llama.cpp does
(https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

#: Where a schema holds others: alone, in a list, or by name. Those that only exclude are not looked into.
_ALONE = ("items", "additionalProperties", "contains")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_ALTERNATIVES = ("anyOf", "oneOf")
#: Of a list, in a JSON pointer (RFC 6901); no list has more. (Python refuses to read numbers of thousands of digits.)
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class _Place(NamedTuple):
    """``joined``: it is to hold together with another schema, whose properties it must not exclude."""

    schema: Any
    joined: bool


def closed(schema: Any) -> Any:
    """A copy with ``additionalProperties`` false wherever ``properties`` are given and it is left open.

    Schemas that hold together with others (of ``allOf``, or beside ``anyOf``, ``oneOf`` or ``$ref``) stay open: each
    would exclude the properties of the others. Raises RecursionError for one that is nested too deeply,
    UnicodeEncodeError for one with half of a surrogate pair.
    """
    copy = msgspec.json.decode(msgspec.json.encode(schema))
    joined = _joined_references(copy)
    places = [_Place(copy, False)]
    while places:
        place = places.pop()
        node = place.schema
        if not isinstance(node, dict):
            continue
        stays_open = place.joined or id(node) in joined or _joins_others(node)
        if isinstance(node.get("properties"), dict) and not stays_open:
            node.setdefault("additionalProperties", False)
        places += _inner(place)
    return copy


def _joins_others(node: dict[str, Any]) -> bool:
    """Whether the schema has properties of its own that hold together with those of others."""
    return "properties" in node and any(name in node for name in ("allOf", "$ref", *_ALTERNATIVES))


def _inner(place: _Place) -> list[_Place]:
    node = place.schema
    joined = place.joined or _joins_others(node)
    parts = _listed(node.get("allOf"))
    found = [_Place(part, joined or len(parts) > 1) for part in parts]
    found += [_Place(part, joined) for name in _ALTERNATIVES for part in _listed(node.get(name))]
    found += [_Place(part, False) for part in _listed(node.get("prefixItems"))]
    found += [_Place(node[name], False) for name in _ALONE if name in node]
    named = (node.get(name) for name in _NAMED)
    found += [_Place(part, False) for each in named if isinstance(each, dict) for part in each.values()]
    return found


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _joined_references(root: Any) -> set[int]:
    """The schemas, by identity, that are referred to from where several hold together, also over further references."""
    found: set[int] = set()
    places = [_Place(root, False)]
    while places:
        place = places.pop()
        node = place.schema
        if not isinstance(node, dict):
            continue
        reference = node.get("$ref")
        if isinstance(reference, str) and (place.joined or _joins_others(node)):
            target = _target(root, reference)
            if target is not None and id(target) not in found:
                found.add(id(target))
                places.append(_Place(target, True))
        places += _inner(place)
    return found


def _target(root: Any, reference: str) -> Any:
    """What a reference within the document points at; None where it does not."""
    if not reference.startswith("#"):
        return None
    node = root
    for part in filter(None, reference[1:].split("/")):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list):
            node = node[int(name)] if _INDEX.fullmatch(name) and int(name) < len(node) else None
        else:
            node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None
