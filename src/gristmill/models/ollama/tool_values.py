"""Tools as Ollama's templates see them: what its types keep of a function's JSON schema, in their order.

https://github.com/ollama/ollama/blob/main/api/types.go (``Tool``), and what template.go makes of them.
"""

from __future__ import annotations

from typing import Any

from gristmill.models.ollama.go_template.values import FieldTag, JsonMap, NameList, OrderedMap, Struct, to_json

_TOOL = {"Type": FieldTag("type"), "Items": FieldTag("items", True), "Function": FieldTag("function")}
_FUNCTION = {
    "Name": FieldTag("name"),
    "Description": FieldTag("description", True),
    "Parameters": FieldTag("parameters"),
}
_PARAMETERS = {
    "Type": FieldTag("type"),
    "Defs": FieldTag("$defs", True),
    "Items": FieldTag("items", True),
    "Required": FieldTag("required", True),
    "Properties": FieldTag("properties"),
}
#: What tells a property from other structs.
PROPERTY = {
    "AnyOf": FieldTag("anyOf", True),
    "Type": FieldTag("type", True),
    "Items": FieldTag("items", True),
    "Description": FieldTag("description", True),
    "Enum": FieldTag("enum", True),
    "Properties": FieldTag("properties", True),
    "Required": FieldTag("required", True),
}
_TYPESCRIPT = {
    "string": "string", "number": "number", "integer": "number", "boolean": "boolean", "array": "any[]",
    "object": "Record<string, any>", "null": "null",
}  # fmt: skip


def tool_value(tool: dict[str, Any]) -> Struct:
    """``tool`` as a request has it, its schema checked by nobody: what is of another type than Ollama takes is left
    out, where Ollama would refuse the request."""
    function = _map(tool.get("function"))
    schema = _map(function.get("parameters"))
    parameters = Struct(
        {
            "Type": _text(schema.get("type")),
            "Defs": schema.get("$defs"),
            "Items": schema.get("items"),
            "Required": _texts(schema.get("required")),
            "Properties": _properties(schema.get("properties")),
        },
        _PARAMETERS,
    )
    about = {
        "Name": _text(function.get("name")),
        "Description": _text(function.get("description")),
        "Parameters": parameters,
    }
    fields = {
        "Type": _text(tool.get("type")),
        "Items": tool.get("items"),
        "Function": Struct(about, _FUNCTION),
    }
    return Struct(fields, _TOOL, text=to_json)


def _properties(found: Any) -> JsonMap:
    if not isinstance(found, dict):
        return JsonMap()
    return JsonMap({name: _property(schema) for name, schema in found.items()})


def _property(schema: Any) -> Struct:
    schema = _map(schema)
    named = schema.get("type")
    inner = _map(schema.get("properties"))
    return Struct(
        {
            "AnyOf": [_property(each) for each in _list(schema.get("anyOf"))],
            "Type": NameList([named] if isinstance(named, str) else _texts(named)),
            "Items": schema.get("items"),
            "Description": _text(schema.get("description")),
            "Enum": _list(schema.get("enum")),
            "Properties": OrderedMap({name: _property(each) for name, each in inner.items()}) or None,
            "Required": _texts(schema.get("required")),
        },
        PROPERTY,
        methods={"ToTypeScriptType": typescript_type},
    )


def typescript_type(value: Struct) -> str:
    """Of a property."""
    if value.fields["AnyOf"]:
        return " | ".join(map(typescript_type, value.fields["AnyOf"]))
    return " | ".join(_TYPESCRIPT.get(name, "any") for name in value.fields["Type"]) or "any"


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [each for each in _list(value) if isinstance(each, str)]
