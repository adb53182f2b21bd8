"""What a response's request asks of a chat, and what it is refused for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.inference import responses
from gristmill.inference.opaque_reasoning import opaque
from gristmill.wire.errors import ApiError

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True, "description": None}


def asked(passes_through: bool = False, **given: Any) -> dict[str, Any]:
    body = json.dumps({"model": "m", "input": "Hi"} | given).encode()
    found: dict[str, Any] = json.loads(responses.chat_body(responses.parse(body), body, passes_through))
    return found


def refused(passes_through: bool = False, **given: Any) -> tuple[str | None, str]:
    with pytest.raises(ApiError) as caught:
        asked(passes_through, **given)
    assert caught.value.status == (404 if caught.value.body.code == "item_not_found" else 400)
    return caught.value.body.param, str(caught.value)


def test_the_least_request_asks_for_no_more() -> None:
    assert asked() == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_defaults_that_clients_send_ask_for_nothing() -> None:
    """openai-agents: include and tools; inspect: store, include, reasoning; the AI SDK: text and truncation."""
    given: dict[str, Any] = {
        "include": [], "tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "store": False,
        "text": {"format": {"type": "text"}, "verbosity": "medium"}, "truncation": "disabled", "background": False,
        "reasoning": {"summary": "auto"}, "metadata": {"a": "b"}, "top_logprobs": 0, "service_tier": None,
        "previous_response_id": None, "stream": False, "conversation": None, "prompt": None,
    }  # fmt: skip
    assert asked(**given) == asked()
    assert asked(include=["reasoning.encrypted_content"]) == asked()


def test_items_become_messages() -> None:
    items = [
        {"role": "developer", "content": "Be brief"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
         "content": [{"type": "output_text", "text": "Let me see", "annotations": [], "logprobs": []}]},
        CALL | {"id": "fc_1", "status": "completed"},
        CALL | {"call_id": "c2", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "12 C"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "rain"}]},
        {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "Ah"}], "content": None},
        CALL | {"call_id": "c3"},
        {"type": "reasoning", "id": "rs_3", "summary": [], "encrypted_content": None},
        {"role": "assistant", "content": "Cold"},
        {"role": "assistant", "content": "and wet"},
        {"role": "user", "content": [
            {"type": "input_text", "text": "See"}, {"type": "input_image", "image_url": "data:,x", "detail": "low"},
            {"type": "input_image", "image_url": "data:,y", "detail": "auto"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:,z"},
            {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
        ]},
    ]  # fmt: skip
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    second = {"id": "c2", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    assert asked(input=items, instructions="Help")["messages"] == [
        {"role": "system", "content": "Help"},
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "reasoning_content": "Hm", "content": "Let me see", "tool_calls": [call, second]},
        {"role": "tool", "tool_call_id": "c1", "content": "12 C"},
        {"role": "tool", "tool_call_id": "c2", "content": "rain"},
        {"role": "assistant", "reasoning_content": "Ah", "content": "Cold", "tool_calls": [call | {"id": "c3"}]},
        {"role": "assistant", "content": "and wet"},
        {"role": "user", "content": [
            {"type": "text", "text": "See"},
            {"type": "image_url", "image_url": {"url": "data:,x", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "data:,y"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:,z"}},
            {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
        ]},
    ]  # fmt: skip


def test_parameters_are_called_as_in_chats() -> None:
    schema = {"type": "object", "properties": {}}
    found = asked(
        max_output_tokens=9, temperature=0, top_p=0.5, include=["message.output_text.logprobs"], top_logprobs=3,
        reasoning={"effort": "low"}, user="u", seed=3, stop=["x"], stream=True,
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}, "verbosity": "low"},
    )  # fmt: skip
    del found["messages"], found["model"]
    assert found == {
        "max_tokens": 9, "temperature": 0, "top_p": 0.5, "logprobs": True, "top_logprobs": 3,
        "reasoning_effort": "low", "verbosity": "low", "user": "u", "seed": 3, "stop": ["x"],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert asked(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}


def test_tools_and_the_choice_of_them() -> None:
    function = {"name": "f", "parameters": {"type": "object"}, "strict": True}
    other = TOOL | {"name": "g"}
    both = {"tools": [TOOL, other]}
    assert asked(tools=[TOOL])["tools"] == [{"type": "function", "function": function}]
    assert asked(**both, parallel_tool_calls=False)["parallel_tool_calls"] is False
    assert asked(**both, tool_choice="required")["tool_choice"] == "required"
    named = asked(**both, tool_choice={"type": "function", "name": "g"})["tool_choice"]
    assert named == {"type": "function", "function": {"name": "g"}}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
    found = asked(**both, tool_choice=allowed)
    assert [each["function"]["name"] for each in found["tools"]] == ["g"] and found["tool_choice"] == "required"


def test_other_fields_go_to_a_server_and_are_refused_elsewhere() -> None:
    assert asked(True, top_k=4, chat_template_kwargs={"a": True})["chat_template_kwargs"] == {"a": True}
    assert refused(mirostat=1)[0] == "mirostat"
    assert refused(instruction="x") == (
        "instruction", "Unrecognized request argument supplied: instruction. Did you mean 'instructions'?",
    )  # fmt: skip
    for passes_through in (False, True):
        assert "Did you mean 'max_output_tokens'" in refused(passes_through, max_completion_tokens=4)[1]
        assert "Did you mean 'input'" in refused(passes_through, messages=[])[1]
        assert refused(passes_through, n=2)[0] == "n"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"background": True}, "background"),
        ({"store": True}, "store"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"include": ["a.b"]}, "include[0]"),
        ({"tools": [TOOL, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "mcp", "server_label": "s"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "c"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [TOOL | {"name": "a b"}]}, "tools[0].name"),
        ({"tools": [TOOL | {"parameters": []}]}, "tools[0].parameters"),
        ({"tool_choice": "f"}, "tool_choice"),
        ({"tool_choice": ["f"]}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "any", "tools": []}}, "tool_choice.mode"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": 3}}, "tool_choice.tools"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "x"}]}},
         "tool_choice.tools"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"type": "message", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": 3}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
         "input[0].content[0].file_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "f"}]}]},
         "input[0].content[0].file_url"),
        ({"input": [{"role": "user", "content": "x"}, CALL | {"arguments": {}}]}, "input[1].arguments"),
        ({"input": [CALL | {"name": None}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "x"}]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "gAAA"}]},
         "input[0].encrypted_content"),
        ({"input": [{"type": "reasoning", "summary": [{"type": "input_image"}]}]}, "input[0].summary[0].type"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_by_name(given: dict[str, Any], param: str) -> None:
    assert refused(**given)[0] == param


@given(st.text(min_size=1))
def test_reasoning_comes_back_by_its_encrypted_content(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": opaque(text)}
    (message,) = asked(input=[item])["messages"]
    assert message == {"role": "assistant", "content": None, "reasoning_content": text}
    for odd in (opaque(text) + "x", opaque(text)[1:], "gristmill.", "gristmill./w==", "gristmill.é"):
        assert refused(input=[item | {"encrypted_content": odd}])[0] == "input[0].encrypted_content"


def test_a_very_long_input_is_taken() -> None:
    items = [{"role": "user", "content": [{"type": "input_text", "text": "x"}] * 2}] * 10_000
    assert len(asked(input=items)["messages"]) == 10_000
