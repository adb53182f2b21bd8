"""Requests of Anthropic's Messages API as chat completions: every part of one arrives, or is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.inference.messages_request import chat_body, parse
from gristmill.wire.errors import ApiError

TEXT = {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object", "x": 1.50}}


def body(**fields: Any) -> bytes:
    given = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]} | fields
    return json.dumps(given).encode()


def chat(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chat_body(parse(body(**fields))))
    return found


def refused(**fields: Any) -> str:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert caught.value.status == 400
    return f"{caught.value.body.param}: {caught.value.body.message}"


def test_a_plain_request_asks_for_nothing_more() -> None:
    assert chat() == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    inert = {"metadata": {"user_id": "u"}, "service_tier": "auto", "speed": "standard",
             "cache_control": {"type": "ephemeral"}, "stream": True, "stop_sequences": [], "tools": [],
             "tool_choice": {"type": "none"}, "thinking": {"type": "adaptive"}}  # fmt: skip
    assert chat(**inert) == chat()


def test_a_conversation_with_tools_and_images() -> None:
    calls = [{"type": "tool_use", "id": f"t{n}", "name": "weather", "input": {"city": "Ulm"}} for n in (1, 2)]
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
        {"type": "tool_result", "tool_use_id": "t2", "is_error": True, "content": [TEXT, IMAGE]},
        TEXT,
    ]
    thought = {"type": "thinking", "thinking": "Let me see.", "signature": "s"}
    found = chat(
        system=[TEXT, {"type": "text", "text": "Be brief."}],
        messages=[
            {"role": "user", "content": [TEXT, IMAGE]},
            {"role": "assistant", "content": [thought, {"type": "redacted_thinking", "data": "x"}, *calls]},
            {"role": "user", "content": results},
            {"role": "assistant", "content": [{"type": "text", "text": "It rains."}]},
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}]},
        ],
    )["messages"]
    text = {"type": "text", "text": "What is this?"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    function = {"name": "weather", "arguments": '{"city":"Ulm"}'}
    assert found == [
        {"role": "system", "content": [text, {"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [text, image]},
        {"role": "assistant", "content": None, "reasoning_content": "Let me see.", "tool_calls": [
            {"id": "t1", "type": "function", "function": function},
            {"id": "t2", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "t1", "content": "rain"},
        {"role": "tool", "tool_call_id": "t2", "content": [{"type": "text", "text": "Error: "}, text, image]},
        {"role": "user", "content": "What is this?"},
        {"role": "assistant", "content": "It rains."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
    ]  # fmt: skip


def test_tools_and_choices() -> None:
    found = chat(tools=[TOOL, {"name": "b", "type": "custom", "input_schema": {}, "strict": True}])
    assert found["tools"] == [
        {"type": "function", "function": {"name": "weather", "parameters": TOOL["input_schema"], "description": "d"}},
        {"type": "function", "function": {"name": "b", "parameters": {}, "strict": True}},
    ]
    assert "tool_choice" not in found
    for choice, wanted in (
        ({"type": "auto"}, "auto"), ({"type": "any"}, "required"), ({"type": "none"}, "none"),
        ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
    ):  # fmt: skip
        found = chat(tools=[TOOL], tool_choice=choice)
        assert found["tool_choice"] == wanted and "parallel_tool_calls" not in found
    assert (
        chat(tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True})["parallel_tool_calls"]
        is False
    )
    assert "tool_choice" in refused(tool_choice={"type": "any"})
    assert "not one of the 'tools'" in refused(tools=[TOOL], tool_choice={"type": "tool", "name": "x"})


def test_settings_have_the_names_of_servers() -> None:
    output = {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}}
    settings = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "stop_sequences": ["a", "b"]}
    found = chat(**settings, thinking={"type": "disabled"}, output_config=output)
    assert (found["temperature"], found["top_p"], found["top_k"], found["stop"]) == (0.5, 0.9, 5, ["a", "b"])
    assert found["chat_template_kwargs"] == {"enable_thinking": False} and found["reasoning_effort"] == "high"
    assert found["response_format"] == {
        "type": "json_schema", "json_schema": {"name": "output", "schema": {"type": "object"}, "strict": True},
    }  # fmt: skip
    thinking = {"type": "enabled", "budget_tokens": 2048}
    assert chat(thinking=thinking)["chat_template_kwargs"] == {"enable_thinking": True}


def test_an_assistant_message_at_the_end_is_continued() -> None:
    found = chat(messages=[{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "It is"}])
    assert (found["add_generation_prompt"], found["continue_final_message"]) == (False, True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"temperature": 1.5}, "temperature"),
        ({"mcp_servers": []}, "offer as 'tools'"),
        ({"container": "x"}, "no containers"),
        ({"context_management": {}}, "Leave out of 'messages'"),
        ({"speed": "fast"}, "speed"),
        ({"max_token": 1}, "max_tokens"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "name and input_schema"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "Every tool is loaded"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "Possible are blocks"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]},
         "'base64' or by 'url'"),
        ({"messages": [{"role": "assistant", "content": [IMAGE]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}]}]},
         "'user' has no blocks of the type 'tool_use'"),
        ({"messages": [{"role": "system", "content": [IMAGE]}]}, "'system' has no blocks"),
        ({"thinking": {"type": "enabled"}}, "budget_tokens"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "schema"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], said: str) -> None:
    assert said in refused(**fields)


BLOCKS = st.sampled_from([TEXT, IMAGE, {"type": "text", "text": "é\u2028"}])


@given(st.lists(st.tuples(st.sampled_from(["user", "system"]), st.lists(BLOCKS, max_size=3)), min_size=1, max_size=4))
def test_no_text_is_lost(said: list[tuple[str, list[dict[str, Any]]]]) -> None:
    messages = [
        {"role": role, "content": [each for each in blocks if role == "user" or each["type"] == "text"]}
        for role, blocks in said
    ]
    found = chat(messages=messages)["messages"]
    wanted = [(m["role"], [b.get("text", "image") for b in m["content"]]) for m in messages]
    assert [(m["role"], told(m["content"])) for m in found] == [(role, texts or [""]) for role, texts in wanted]


def told(content: str | list[dict[str, Any]]) -> list[str]:
    return [content] if isinstance(content, str) else [part.get("text", "image") for part in content]
