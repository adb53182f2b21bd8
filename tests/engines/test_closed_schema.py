"""Schemas are closed for decoding wherever that excludes nothing that was asked for, and nowhere else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jsonschema
import pydantic
import pytest

from gristmill.engines.closed_schema import closed

A = {"type": "object", "properties": {"a": {"type": "integer"}}}
B = {"type": "object", "properties": {"b": {"type": "integer"}}}


def shut(schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"additionalProperties": False}


def test_every_level_with_properties_is_closed_and_the_schema_given_is_not_changed() -> None:
    given = {
        "type": "object",
        "properties": {"inner": A, "list": {"type": "array", "items": B}, "either": {"anyOf": [A, {"type": "null"}]}},
        "$defs": {"d": A},
    }
    before = str(given)
    found = closed(given)
    assert str(given) == before
    assert found == shut(
        given
        | {
            "properties": {
                "inner": shut(A),
                "list": {"type": "array", "items": shut(B)},
                "either": {"anyOf": [shut(A), {"type": "null"}]},
            },
            "$defs": {"d": shut(A)},
        }
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        A | {"additionalProperties": True},
        A | {"additionalProperties": {"type": "string"}},
        {"enum": [{"properties": {"a": 1}}]},
        {"const": {"properties": {}}},
        {"default": {"properties": {}}},
        {"allOf": [A, B]},
        A | {"anyOf": [B, {"required": ["a"]}]},
        A | {"$ref": "#/$defs/b", "$defs": {"b": B}},
        {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
         "$defs": {"a": A, "b": {"$ref": "#/$defs/c"}, "c": B}},
        {"allOf": [A, {"anyOf": [B, {"type": "object"}]}]},
        {"$ref": "#/nowhere/~0~1/3"},
    ],
)  # fmt: skip
def test_what_says_so_itself_or_holds_together_with_others_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema


def test_a_property_may_be_called_properties() -> None:
    schema = {"type": "object", "properties": {"properties": A, "additionalProperties": {"type": "string"}}}
    found = closed(schema)
    assert found["properties"] == {"properties": shut(A), "additionalProperties": {"type": "string"}}
    assert found["additionalProperties"] is False


@pytest.mark.parametrize("index", ["9" * 5000, "2", "01", "-1", "\u00b2", "x"])
def test_a_reference_to_nothing_closes_nothing(index: str) -> None:
    schema = {"allOf": [{"$ref": f"#/allOf/{index}"}, {"type": "object"}]}
    assert closed(schema) == schema


def test_a_schema_that_refers_to_itself_is_walked_once() -> None:
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    assert closed(tree) == shut(tree)
    joined = {"allOf": [{"$ref": "#/$defs/x"}, A], "$defs": {"x": {"allOf": [{"$ref": "#/$defs/x"}, B]}}}
    assert closed(joined) == joined


class Inner(pydantic.BaseModel):
    kind: Literal["inner"] = "inner"
    x: int = 3


class Other(pydantic.BaseModel):
    kind: Literal["other"]
    y: float | None = None


class Outer(pydantic.BaseModel):
    inner: Inner
    either: Annotated[Inner | Other, pydantic.Field(discriminator="kind")]
    names: dict[str, int]
    pairs: list[tuple[int, str]] = []


def test_what_pydantic_makes_of_a_model_is_valid_and_what_it_does_not_name_is_not() -> None:
    found = closed(Outer.model_json_schema())
    right = Outer(inner=Inner(), either=Other(kind="other"), names={"a": 1}, pairs=[(1, "x")]).model_dump(mode="json")
    jsonschema.validate(right, found)
    for path in ("inner", "either"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(right | {path: right[path] | {"more": 1}}, found)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(right | {"more": 1}, found)
