"""Whatever comes, in whichever order: the events are the SDK's, and put together they are the response."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gristmill.engines.protocol import Choice, ChoiceDelta, Completion
from gristmill.inference.opaque_reasoning import text_of
from gristmill.inference.responses_stream import ResponseStream, response_of
from gristmill.wire.chat import TokenLogprob, TopLogprob
from gristmill.wire.errors import ApiError
from gristmill.wire.responses import ReasoningConfig, ResponseRequest
from gristmill.wire.tools import FunctionCall, FunctionCallDelta, ToolCall, ToolCallDelta

SDK_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ENDS = {"stop": "completed", "tool_calls": "completed", "length": "incomplete", "content_filter": "incomplete"}


def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def answers(draw: st.DrawFn) -> tuple[Completion, list[list[ChoiceDelta]]]:
    """A completion, and its pieces: a list for each part of it, as their order within a part is all that is given."""
    texts = st.text(max_size=12)
    text, refusal = draw(texts), draw(st.sampled_from(["", "", "No."]))
    reasoning = draw(st.none() | st.text(min_size=1, max_size=12))
    parts = [
        [ChoiceDelta(0, piece, [TokenLogprob(piece, -1.0, None, [TopLogprob("x", -2.0)])] if piece else None)
         for piece in pieces_of(draw, text)],
        [ChoiceDelta(0, reasoning=piece) for piece in pieces_of(draw, reasoning or "")],
        [ChoiceDelta(0, refusal=piece) for piece in pieces_of(draw, refusal)],
    ]  # fmt: skip
    calls = []
    for index in range(draw(st.integers(0, 3))):
        call = ToolCall(f"call_{index}", FunctionCall(f"f{index}", draw(texts)))
        first, *rest = pieces_of(draw, call.function.arguments)
        begun = ToolCallDelta(index, call.id, "function", FunctionCallDelta(call.function.name, first))
        more = [ToolCallDelta(index, function=FunctionCallDelta(arguments=piece)) for piece in rest]
        parts.append([ChoiceDelta(0, tool_calls=(each,)) for each in (begun, *more)])
        calls.append(call)
    logprobs = [token for delta in parts[0] for token in delta.logprobs or ()]
    end = draw(st.sampled_from(sorted(ENDS)))
    choice = Choice(text, end, logprobs or None, tuple(calls), reasoning, refusal or None)
    return Completion("m", (choice,), 11, 7, 5, reasoning_tokens=2), parts


def run(stream: ResponseStream, deltas: list[ChoiceDelta], end: Completion | ApiError) -> list[dict[str, Any]]:
    """The events as they are sent, each checked by the SDK's own type."""
    events: list[dict[str, Any]] = []
    calls: list[Any] = [stream.begin, *(lambda delta=delta: stream.delta(delta) for delta in deltas)]
    calls.append(lambda: stream.failed(end) if isinstance(end, ApiError) else stream.finish(end))
    for call in calls:
        for event in call():
            data = msgspec.json.encode(event)
            parsed = SDK_EVENT.validate_json(data)
            events.append(msgspec.json.decode(data))
            assert parsed.type == events[-1]["type"] == event.__struct_config__.tag
    return events


def put_together(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output by the deltas alone; on the way, every rule of the order of events is checked."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    output: list[dict[str, Any]] = []
    open_items: set[int] = set()
    open_parts: set[tuple[int, str, int]] = set()
    for event in events[2:-1]:
        kind, place = event["type"], event["output_index"]
        if kind == "response.output_item.added":
            assert place == len(output)
            output.append(event["item"])
            open_items.add(place)
            continue
        item = output[place]
        assert place in open_items
        if kind == "response.output_item.done":
            open_items.remove(place)
            final = {"status": event["item"]["status"]}
            if encrypted := event["item"].get("encrypted_content"):
                (part,) = item["content"] or item["summary"]
                final["encrypted_content"] = encrypted
                assert text_of(encrypted) == part["text"]
            assert event["item"] == item | final
            assert not [part for part in open_parts if part[0] == place]
            item |= final
            continue
        assert event["item_id"] == item["id"]
        if kind.startswith("response.function_call_arguments"):
            if kind.endswith("delta"):
                item["arguments"] += event["delta"]
            else:
                assert (event["arguments"], event["name"]) == (item["arguments"], item["name"])
            continue
        field, number = ("summary", "summary_index") if "summary" in kind else ("content", "content_index")
        part = (place, field, event[number])
        if kind.endswith("part.added"):
            assert event[number] == len(item[field])
            item[field].append(event["part"])
            open_parts.add(part)
            continue
        assert part in open_parts
        found = item[field][event[number]]
        text = "refusal" if found["type"] == "refusal" else "text"
        if kind.endswith(".delta"):
            found[text] += event["delta"]
            found.get("logprobs", []).extend(event.get("logprobs", []))
        elif kind.endswith("part.done"):
            assert event["part"] == found
            open_parts.remove(part)
        else:
            assert event[text] == found[text] and event.get("logprobs") == found.get("logprobs")
    assert not open_items and not open_parts
    return output


def told(output: list[dict[str, Any]]) -> dict[str, Any]:
    """What the output says, without where it was cut into items."""
    said: dict[str, Any] = {"text": "", "refusal": "", "reasoning": "", "logprobs": [], "calls": []}
    for item in output:
        if item["type"] == "function_call":
            said["calls"].append((item["call_id"], item["name"], item["arguments"]))
            continue
        for part in [*item["content"], *item.get("summary", [])]:
            kind = {"output_text": "text", "refusal": "refusal"}.get(part["type"], "reasoning")
            said[kind] += part["refusal" if kind == "refusal" else "text"]
            said["logprobs"] += part.get("logprobs", [])
    said["calls"].sort()
    return said


def plain(struct: msgspec.Struct) -> Any:
    return msgspec.json.decode(msgspec.json.encode(struct))


def without_ids(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in item.items() if key != "id"} for item in output]


@given(answers(), st.booleans(), st.data())
def test_any_order_of_pieces_makes_the_same_response(
    answer: tuple[Completion, list[list[ChoiceDelta]]], summary: bool, data: st.DataObject
) -> None:
    completion, parts = answer
    reasoning = ReasoningConfig(summary="auto" if summary else None)
    include = ["reasoning.encrypted_content"] if data.draw(st.booleans()) else None
    request = ResponseRequest(model="asked", input="x", reasoning=reasoning, include=include)
    deltas: list[ChoiceDelta] = []
    queues = [list(part) for part in parts]
    while queues := [queue for queue in queues if queue]:
        deltas.append(data.draw(st.sampled_from(queues)).pop(0))
    events = run(ResponseStream(request), deltas, completion)
    whole = plain(response_of(request, completion))
    last = events[-1]["response"]
    status = ENDS[completion.choices[0].finish_reason]
    assert events[-1]["type"] == f"response.{status}" and last["status"] == whole["status"] == status
    output = put_together(events)
    assert output == last["output"]
    assert told(output) == told(whole["output"])
    changing = {"id", "output", "created_at", "completed_at"}
    assert {k: v for k, v in last.items() if k not in changing} == {k: v for k, v in whole.items() if k not in changing}
    choice = completion.choices[0]
    assert told(output)["text"] == choice.text and told(output)["reasoning"] == (choice.reasoning or "")
    assert told(output)["calls"] == [(c.id, c.function.name, c.function.arguments) for c in choice.tool_calls]
    statuses = [item["status"] for item in output]
    assert statuses == ["completed"] * (len(output) - 1) + [status]


@given(answers())
def test_the_usual_order_makes_the_same_items(answer: tuple[Completion, list[list[ChoiceDelta]]]) -> None:
    completion, (text, reasoning, refusal, *calls) = answer
    request = ResponseRequest(model="asked", input="x")
    deltas = [delta for part in (reasoning, text, refusal, *calls) for delta in part]
    output = put_together(run(ResponseStream(request), deltas, completion))
    assert without_ids(output) == without_ids(plain(response_of(request, completion))["output"])


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "server_error"), (504, "server_error"), (429, "rate_limit_exceeded"), (400, "invalid_prompt")],
)
def test_what_was_said_before_an_error_is_kept(status: int, code: str) -> None:
    stream = ResponseStream(ResponseRequest(model="m", input="x"))
    call = ToolCallDelta(0, "call_a", "function", FunctionCallDelta("f", '{"a'))
    deltas = [ChoiceDelta(0, reasoning="hm"), ChoiceDelta(0, "so"), ChoiceDelta(0, tool_calls=(call,))]
    events = run(stream, deltas, ApiError(status, "It broke.", param="p"))
    error, failed = events[-2:]
    assert (error["type"], error["message"], error["param"], error["code"]) == ("error", "It broke.", "p", code)
    response = failed["response"]
    assert failed["type"] == "response.failed" and response["status"] == "failed" and response["completed_at"] is None
    assert response["error"] == {"code": code, "message": "It broke."}
    assert [item["status"] for item in response["output"]] == ["completed", "completed", "incomplete"]
    assert response["output"][1]["content"][0]["text"] == "so" and response["output"][2]["arguments"] == '{"a'


def test_an_empty_answer_is_an_empty_message() -> None:
    completion = Completion("m", (Choice("", "stop"),), 1, 0)
    request = ResponseRequest(model="m", input="x")
    (item,) = put_together(run(ResponseStream(request), [], completion))
    assert item["content"] == [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]
