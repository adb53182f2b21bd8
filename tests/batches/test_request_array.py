"""A message batch's body, cut apart however its bytes arrive, gives what a JSON parser finds in it, or a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.batches.request_array import RequestArray
from gristmill.wire.errors import ApiError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from(['"', "\\", "\\\\", '\\"', "{", "]}", "\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=4), JSON, max_size=4)


def cut(body: bytes, sizes: list[int], limit: int = 10**6) -> list[bytes]:
    array, found, position = RequestArray(limit), [], 0
    for size in [*sizes, len(body)]:
        found += list(array.feed(body[position : position + size]))
        position += size
    array.finish()
    assert array.count == len(found)
    return found


@given(
    st.lists(OBJECTS, min_size=1, max_size=4),
    st.lists(st.integers(1, 9), max_size=200),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_elements_are_what_a_parser_finds(
    requests: list[Any], sizes: list[int], indent: int | None, ascii: bool
) -> None:
    body = json.dumps({"requests": requests}, indent=indent, ensure_ascii=ascii)
    assert [json.loads(each) for each in cut(body.encode("utf-8", "surrogatepass"), sizes)] == requests


@given(st.text('[]{},:"\\ requst1\n', max_size=60), st.lists(st.integers(1, 9), max_size=30))
def test_any_other_body_is_a_refusal_or_json(text: str, sizes: list[int]) -> None:
    for body in (text, '{"requests":[' + text, '{"requests":[{"a":1}' + text):
        try:
            found = cut(body.encode(), sizes)
        except ApiError as error:
            assert error.status == 400
            continue
        try:
            whole = json.loads(body)
        except ValueError:
            # Each element is still to be decoded.
            assert any(not parses(each) for each in found)
        else:
            assert list(whole) == ["requests"] and [json.loads(each) for each in found] == whole["requests"]


def parses(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "ends too early"),
        (" \n" * 90_000, "ends too early"),
        ("[]", "must be a JSON object"),
        ("{}", "Missing required parameter: 'requests'"),
        ('{"requests": []}', "at least one"),
        ('{"requests": {}}', "expected an array"),
        ('{"requests": null}', "expected an array"),
        ('{"requests": ["a"]}', "requests[0]"),
        ('{"requests": [{}, 1]}', "requests[1]"),
        ('{"requests": [{}, ]}', "requests[1]"),
        ('{"requests": [{}', "ends too early"),
        ('{"requests": [{}]', "ends too early"),
        ('{"requests": [{}]} x', "after its end"),
        ('{"requests": [{} {}]}', "neither a comma"),
        ('{"requests": [{}], "metadata": {}}', "nothing else"),
        ('{"priority": 1, "requests": [{}]}', "supplied: priority"),
        ('{"' + "x" * 2_000, "does not begin"),
        ('{"requests": [{"a": "' + "x" * 2_000_000, "larger than"),
        ('{"requests": [' + '{"a":' * 300_000, "larger than"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(body: str, said: str) -> None:
    with pytest.raises(ApiError) as refused:
        cut(body.encode(), [65_536] * 64)
    assert said in refused.value.body.message and len(refused.value.body.message) < 400
