"""Completions as messages of Anthropic's API; the official SDK puts the events of a stream together to the same."""

from __future__ import annotations

import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gristmill.engines.protocol import Choice, ChoiceDelta, Completion
from gristmill.inference.messages_answer import MessageTranslator, message
from gristmill.wire.errors import ApiError
from gristmill.wire.json import encode
from gristmill.wire.tools import FunctionCall, FunctionCallDelta, ToolCall, ToolCallDelta

EVENTS: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
PIECES = st.lists(st.text(max_size=5), max_size=4)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[ChoiceDelta], Completion]:
    """An answer in pieces, and the whole of it."""
    reasoning, text = draw(PIECES), draw(PIECES)
    deltas = [ChoiceDelta(0, reasoning=piece) for piece in reasoning] + [ChoiceDelta(0, piece) for piece in text]
    calls = []
    for index in range(draw(st.integers(0, 3))):
        arguments = msgspec.json.encode(draw(st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))).decode()
        middle = draw(st.integers(0, len(arguments)))
        calls.append(ToolCall(f"t{index}", FunctionCall(f"f{index}", arguments)))
        first = FunctionCallDelta(f"f{index}", arguments[:middle])
        deltas.append(ChoiceDelta(0, tool_calls=(ToolCallDelta(index, f"t{index}", "function", first),)))
        rest = FunctionCallDelta(arguments=arguments[middle:])
        deltas.append(ChoiceDelta(0, tool_calls=(ToolCallDelta(index, function=rest),)))
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    choice = Choice("".join(text), reason, None, tuple(calls), "".join(reasoning) or None)
    cached = draw(st.sampled_from([None, 0, 4]))
    return deltas, Completion("m", (choice,), 9, 5, cached, reasoning_tokens=draw(st.sampled_from([None, 2])))


@given(answers())
def test_a_stream_is_the_whole_message_to_the_official_sdk(answer: tuple[list[ChoiceDelta], Completion]) -> None:
    deltas, completion = answer
    translator = MessageTranslator("m")
    events = list(translator.begin())
    for delta in deltas:
        events += translator.delta(delta)
    events += translator.finish(completion)
    snapshot, buffers = None, {}
    for event in events:
        encoded = msgspec.json.decode(encode(event))
        assert encoded["type"] == event.__struct_config__.tag
        if encoded["type"] != "ping":
            EVENTS.validate_python(encoded)
            snapshot = accumulate_event(event=encoded, current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    whole = Message.model_validate_json(encode(message(completion)))
    assert [block.to_dict() for block in snapshot.content] == [block.to_dict() for block in whole.content]
    assert (snapshot.stop_reason, snapshot.stop_sequence) == (whole.stop_reason, whole.stop_sequence)
    assert snapshot.usage.to_dict() == whole.usage.to_dict()
    opened = [event.index for event in events if event.__struct_config__.tag == "content_block_start"]
    closed = [event.index for event in events if event.__struct_config__.tag == "content_block_stop"]
    assert opened == closed == list(range(len(whole.content)))


def test_cached_tokens_are_told_apart_from_the_others() -> None:
    usage = message(Completion("m", (Choice("", "stop"),), 10, 2, 7)).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (3, 7, 0)
    usage = message(Completion("m", (Choice("", "stop"),), 10, 2)).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (10, None)


def test_reasons() -> None:
    call = (ToolCall("t", FunctionCall("f", "")),)
    for choice, reason, found in (
        (Choice("a", "stop"), "end_turn", None),
        (Choice("a", "length"), "max_tokens", None),
        (Choice("a", "stop", stop="END"), "stop_sequence", "END"),
        (Choice("", "stop", tool_calls=call), "tool_use", None),
        (Choice("", "tool_calls", tool_calls=call), "tool_use", None),
        (Choice("", "stop", refusal="No."), "refusal", None),
        (Choice("", "content_filter"), "refusal", None),
        (Choice("", "odd"), "end_turn", None),
    ):
        told = message(Completion("m", (choice,), 1, 1))
        assert (told.stop_reason, told.stop_sequence) == (reason, found)
    assert message(Completion("m", (Choice("", "stop", tool_calls=call),), 1, 1)).content[0].input == {}


@pytest.mark.parametrize("arguments", ["[1]", "{", "null", '"x"', "[" * 100_000])
def test_a_call_with_arguments_that_are_no_object_is_an_error(arguments: str) -> None:
    choice = Choice("", "tool_calls", tool_calls=(ToolCall("t", FunctionCall("f", arguments)),))
    with pytest.raises(ApiError) as refused:
        message(Completion("m", (choice,), 1, 1))
    assert refused.value.status == 500 and "'f'" in refused.value.body.message


def test_pieces_of_calls_that_come_mixed_up_end_in_an_error() -> None:
    translator = MessageTranslator("m")
    events = []
    for index in (0, 1, 0):
        piece = ToolCallDelta(index, f"t{index}", "function", FunctionCallDelta("f", "{"))
        events += translator.delta(ChoiceDelta(0, tool_calls=(piece,)))
    assert [event.__struct_config__.tag for event in events].count("content_block_start") == 2
    (last,) = translator.finish(Completion("m", (Choice("", "stop"),), 1, 1))
    assert last.__struct_config__.tag == "error"
