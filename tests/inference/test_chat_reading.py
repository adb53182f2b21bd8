"""A server's stream, however it is cut, reads as its whole answer does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import ChoiceDelta
from gristmill.inference.chat_reading import StreamReader, completion
from gristmill.wire.tools import FunctionCall, ToolCall

USAGE = {"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4},
         "completion_tokens_details": {"reasoning_tokens": 3}}  # fmt: skip


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """A message of a server."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | st.text(max_size=20))}
    if draw(st.booleans()):
        message[draw(st.sampled_from(["reasoning", "reasoning_content"]))] = draw(st.text(min_size=1, max_size=20))
    if draw(st.booleans()):
        message["refusal"] = draw(st.text(min_size=1, max_size=5))
    count = draw(st.integers(0, 3))
    if count:
        message["tool_calls"] = [
            {"id": f"id{i}", "type": "function", "function": {"name": f"f{i}", "arguments": draw(st.text(max_size=9))}}
            for i in range(count)
        ]
    return message


def pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A message, and deltas of it in any order that keeps the order of each part."""
    message = draw(answers())
    queues: list[list[dict[str, Any]]] = []
    for name in ("content", "reasoning", "reasoning_content", "refusal"):
        if message.get(name):
            queues.append([{name: piece} for piece in pieces(draw, message[name])])
    indexed = draw(st.booleans())
    calls: list[dict[str, Any]] = []
    for index, call in enumerate(message.get("tool_calls", ())):
        place = {"index": index} if indexed else {}
        first, *rest = pieces(draw, call["function"]["arguments"])
        calls.append(place | call | {"function": call["function"] | {"arguments": first}})
        calls += [place | {"function": {"arguments": piece}} for piece in rest]
    queues.append([{"tool_calls": [call]} for call in calls])
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    while queues := [queue for queue in queues if queue]:
        deltas.append(draw(st.sampled_from(queues)).pop(0))
    return message, deltas


@given(streams())
def test_a_stream_reads_as_the_whole_answer(stream: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    message, deltas = stream
    whole = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE}
    reader = StreamReader("asked")
    read: list[ChoiceDelta] = []
    for delta in deltas:
        chunk = {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None}
        read += reader.read(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    for end in ({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE}):
        assert reader.read(b"data: " + json.dumps(end).encode() + b"\r\n\r\n") == []
    assert reader.read(b"data: [DONE]\n\n") == reader.read(b": ping\n\n") == []
    found = reader.completion()
    assert found == completion(json.dumps(whole).encode(), "asked")
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens, found.reasoning_tokens) == (9, 7, 4, 3)
    (choice,) = found.choices
    assert choice.text == "".join(delta.text for delta in read) == (message["content"] or "")
    assert choice.reasoning == (message.get("reasoning") or message.get("reasoning_content"))
    assert choice.refusal == message.get("refusal")
    given_calls = [ToolCall(c["id"], FunctionCall(**c["function"])) for c in message.get("tool_calls", ())]
    assert list(choice.tool_calls) == given_calls
    begun = [call for delta in read for call in delta.tool_calls if call.id is not None]
    assert [(call.index, call.id) for call in begun] == [(i, call.id) for i, call in enumerate(given_calls)]


def test_other_choices_and_odd_shapes_are_read() -> None:
    body = {"choices": [{"index": 1, "message": {"content": "other"}, "finish_reason": "stop"},
                        {"index": 0, "finish_reason": "tool_calls", "message": {
                            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                            "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
                         "logprobs": {"content": [{"token": "a", "logprob": -1}]}}]}  # fmt: skip
    found = completion(json.dumps(body).encode(), "asked")
    (choice,) = found.choices
    assert choice.text == "ab" and found.model == "asked" and found.prompt_tokens == 0 and found.cached_tokens is None
    (call,) = choice.tool_calls
    assert call.id.startswith("call_") and call.function == FunctionCall("f", '{"x":1}')
    assert choice.logprobs is not None and choice.logprobs[0].top_logprobs == []


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"choices": 1}', b'{"choices": [{"index": 0}]}', b"[" * 10_000])
def test_what_is_no_answer_is_an_interrupted_request(data: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        completion(data, "asked")
    assert caught.value.kind == "interrupted"
