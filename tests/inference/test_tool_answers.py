"""How calls of tools, and what a model thought, are answered: whole, in chunks, and under the deprecated names."""

from __future__ import annotations

import msgspec
import pytest

from gristmill.engines.protocol import Choice, ChoiceDelta, Completion
from gristmill.inference import chat
from gristmill.wire.errors import ApiError
from gristmill.wire.json import encode
from gristmill.wire.tools import FunctionCall, FunctionCallDelta, ToolCall, ToolCallDelta

CALL = ToolCall("call_1", FunctionCall("weather", '{"city":"Ulm"}'))


def answered(choice: Choice, **options: bool) -> dict:
    completion = Completion("m", (choice,), 3, 2)
    return msgspec.json.decode(encode(chat.chat_completion(completion, **options)))["choices"][0]


def test_a_message_of_calls_alone_has_null_content() -> None:
    found = answered(Choice("", "tool_calls", tool_calls=(CALL,)))
    assert found["finish_reason"] == "tool_calls"
    assert found["message"] == {
        "content": None, "refusal": None, "role": "assistant",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
        ],
    }  # fmt: skip
    assert answered(Choice("Let me see.", "tool_calls", tool_calls=(CALL,)))["message"]["content"] == "Let me see."


def test_without_calls_and_thoughts_a_message_is_as_ever() -> None:
    assert answered(Choice("", "stop"))["message"] == {"content": "", "refusal": None, "role": "assistant"}
    assert answered(Choice("4", "stop", reasoning="2+2"))["message"]["reasoning_content"] == "2+2"


def test_the_deprecated_functions_are_answered_by_a_function_call() -> None:
    found = answered(Choice("", "tool_calls", tool_calls=(CALL,)), legacy=True)
    assert found["finish_reason"] == "function_call"
    assert found["message"]["function_call"] == {"name": "weather", "arguments": '{"city":"Ulm"}'}
    assert "tool_calls" not in found["message"]


def test_a_chunk_says_only_what_its_piece_says() -> None:
    first = ToolCallDelta(0, "call_1", "function", FunctionCallDelta("weather", ""))
    assert msgspec.to_builtins(chat.delta(ChoiceDelta(0, tool_calls=(first,)), legacy=False)) == {
        "tool_calls": [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        ]
    }
    assert msgspec.to_builtins(chat.delta(ChoiceDelta(0, tool_calls=(first,)), legacy=True)) == {
        "function_call": {"name": "weather", "arguments": ""}
    }
    assert msgspec.to_builtins(chat.delta(ChoiceDelta(0, "4"), legacy=False)) == {"content": "4"}
    assert msgspec.to_builtins(chat.delta(ChoiceDelta(0, reasoning="hm"), legacy=False)) == {"reasoning_content": "hm"}


def test_a_request_with_a_tool_of_a_wrong_shape_is_told_where() -> None:
    def refused(**parameters: object) -> str | None:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **parameters}
        with pytest.raises(ApiError) as caught:
            chat.parse(encode(body))
        assert caught.value.status == 400
        return caught.value.body.param

    def tool(name: str, **others: object) -> dict:
        return {"type": "function", "function": {"name": name, **others}}

    for name in ("", "a b", "é", "a" * 65, 'a"', "a\n"):
        assert refused(tools=[tool("a"), tool("b"), tool(name)]) == "tools[2].function.name"
    assert refused(tools=[{"type": "custom", "custom": {"name": "a"}}]) == "tools[0].type"
    assert refused(tools=[tool("a", parameters="{}")]) == "tools[0].function.parameters"
    assert refused(tools=[tool("a", parameter={})]) == "tools[0].function.parameter"
    assert refused(tool_choice="any") == "tool_choice"
    assert (
        refused(messages=[{"role": "assistant", "tool_calls": [{"id": "1"}]}]) == "messages[0].tool_calls[0].function"
    )
    chat.parse(encode({"model": "m", "messages": [{"role": "user"}], "tools": [tool("a-Z_09" + "b" * 58)]}))
