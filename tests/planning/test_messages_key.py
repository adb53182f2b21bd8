"""Rows of Anthropic's messages are planned by tools, system prompt and messages: as a prompt has them."""

from __future__ import annotations

from typing import Any

import msgspec

from gristmill.common_prefix import common_prefix
from gristmill.planning.prompt_key import RowKey, is_repeatable, prompt_length, row_key
from gristmill.wire.line_body import default_fields

SYSTEM = "Rate the candidate by experience. " * 20


def key(text: str, **params: Any) -> RowKey:
    given = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": text}], "system": SYSTEM} | params
    return row_key("/v1/messages", default_fields(given), {})


def shared(one: RowKey, other: RowKey) -> int:
    return common_prefix(one.key, other.key)


def test_rows_with_one_system_prompt_share_it() -> None:
    assert shared(key("a"), key("b")) > len(SYSTEM)
    assert shared(key("a"), key("a", system="Another.")) < 10
    tools = [{"name": "f", "input_schema": {}}]
    assert (
        shared(key("a", tools=tools), key("b", tools=tools))
        > len(SYSTEM)
        > 10
        > shared(key("a", tools=tools), key("a"))
    )
    assert key("a").output_limit == 8


def test_rows_that_ask_the_same_without_chance_have_one_key() -> None:
    same = key("a", temperature=0), key("a", temperature=0, metadata={"user_id": "u"}, stream=False)
    assert same[0].key == same[1].key and is_repeatable(same[0].key, prompt_length(same[0].key))
    assert not is_repeatable(key("a").key, prompt_length(key("a").key))
    assert (
        len(
            {
                key("a", temperature=0, **each).key
                for each in ({}, {"max_tokens": 9}, {"thinking": {"type": "adaptive"}})
            }
        )
        == 3
    )


def test_odd_fields_have_a_key_too() -> None:
    for odd in ('{"system": [1e999]}', '{"tools": {}}', '{"messages": 3}', '{"system": null}', "{}"):
        row_key("/v1/messages", msgspec.json.decode(odd, type=dict[str, msgspec.Raw]), {})
