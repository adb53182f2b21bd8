"""Anthropic's messages in front of a server: what its official SDK sends and gets, over a stand-in's chats."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message
from openai_stand_in import Play, StandIn

from server_process import ServerProcess

USAGE = {
    "prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16, "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}  # fmt: skip
CALLS = [{"index": i, "id": f"call_{i}", "type": "function", "function": {"name": "f", "arguments": f'{{"x": {i}}}'}}
         for i in range(2)]  # fmt: skip
MESSAGE = {"role": "assistant", "content": "So.", "reasoning_content": "Let me see.", "tool_calls": CALLS}
TOOLS: list[Any] = [{"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}]
ASK: dict[str, Any] = {"model": "smollm2", "max_tokens": 50, "messages": [{"role": "user", "content": "How much?"}]}
SAID = [
    {"type": "thinking", "thinking": "Let me see.", "signature": ""},
    {"type": "text", "text": "So."},
    {"type": "tool_use", "id": "call_0", "name": "f", "input": {"x": 0}},
    {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": 1}},
]


def whole(reason: str = "tool_calls", **fields: Any) -> Play:
    choice = {"index": 0, "message": MESSAGE, "finish_reason": reason} | fields
    return Play(200, json.dumps({"model": "its own name", "choices": [choice], "usage": USAGE}).encode())


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(reason: str | None = None, stop_reason: Any = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "stop_reason": stop_reason}
    return event({"id": "x", "model": "its own name", "choices": [choice]})


def called(index: int) -> list[bytes]:
    begun = CALLS[index] | {"function": {"name": "f", "arguments": ""}}
    rest = [chunk(tool_calls=[{"index": index, "function": {"arguments": text}}]) for text in ('{"x"', f": {index}}}")]
    return [chunk(tool_calls=[begun]), *rest]


PIECES = [b": keep-alive\n\n", chunk(role="assistant", content=""), chunk(reasoning_content="Let me"),
          chunk(reasoning=" see."), chunk(content="So"), chunk(content="."), *called(0), *called(1)]  # fmt: skip
END = [chunk("tool_calls"), event({"choices": [], "usage": USAGE}), b"data: [DONE]\n\n"]


def stream_of(*pieces: bytes, cut: int | None = None) -> Play:
    return Play(200, b"".join(pieces), {"Content-Type": "text/event-stream"}, cut)


@pytest.fixture(scope="module")
def bridged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StandIn, anthropic.Anthropic]]:
    with StandIn() as server:
        options = ("--engine", "openai_compatible", "--url", server.url)
        with ServerProcess(tmp_path_factory.mktemp("data"), *options) as running:
            root = running.base_url.removesuffix("/v1")
            yield server, anthropic.Anthropic(base_url=root, api_key="unused", max_retries=0)


def told(message: Message) -> list[Any]:
    Message.model_validate(message.to_dict())
    return [{name: value for name, value in block.to_dict().items() if value is not None} for block in message.content]


def test_all_that_a_server_can_do_reaches_it_and_comes_back(bridged: tuple[StandIn, anthropic.Anthropic]) -> None:
    server, client = bridged
    server.rows = lambda _: whole()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    message = client.messages.create(
        model="smollm2", max_tokens=50, system="Be brief.", messages=[{"role": "user", "content": [image]}],
        tools=TOOLS, tool_choice={"type": "any", "disable_parallel_tool_use": True}, stop_sequences=["END"],
        thinking={"type": "enabled", "budget_tokens": 2048}, output_config={"effort": "low"},
        extra_body={"top_k": 3, "temperature": 0.5},
    )  # fmt: skip
    assert told(message) == SAID and message.stop_reason == "tool_use" and message.model == "its own name"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (5, 4, 7)
    assert usage.output_tokens_details is not None and usage.output_tokens_details.thinking_tokens == 5
    function = {"name": "f", "description": "d", "parameters": TOOLS[0]["input_schema"]}
    assert json.loads(server.bodies[-1]) == {
        "model": "smollm2", "max_tokens": 50, "temperature": 0.5, "top_k": 3, "stop": ["END"],
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}],
        "tools": [{"type": "function", "function": function}], "tool_choice": "required", "parallel_tool_calls": False,
        "chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "low",
    }  # fmt: skip


def test_a_stream_of_chunks_becomes_events(bridged: tuple[StandIn, anthropic.Anthropic]) -> None:
    server, client = bridged
    server.rows = lambda _: stream_of(*PIECES, *END)
    with client.messages.stream(**ASK, tools=TOOLS) as stream:
        kinds = [event.type for event in stream if event.type.startswith(("message", "content_block_st"))]
        message = stream.get_final_message()
    assert told(message) == SAID and message.stop_reason == "tool_use" and message.usage.input_tokens == 5
    assert kinds == [
        "message_start",
        *["content_block_start", "content_block_stop"] * 4,
        "message_delta",
        "message_stop",
    ]
    assert json.loads(server.bodies[-1])["stream_options"] == {"include_usage": True}


def test_what_came_can_be_sent_back_with_the_tools_results(bridged: tuple[StandIn, anthropic.Anthropic]) -> None:
    server, client = bridged
    server.rows = lambda _: whole()
    first = client.messages.create(**ASK, tools=TOOLS)
    results: list[Any] = [{"type": "tool_result", "tool_use_id": f"call_{i}", "content": str(i)} for i in range(2)]
    turns = [*ASK["messages"], first.to_param(), {"role": "user", "content": results}]
    client.messages.create(**(ASK | {"messages": turns}), tools=TOOLS)
    calls = [{"id": f"call_{i}", "type": "function", "function": {"name": "f", "arguments": f'{{"x":{i}}}'}}
             for i in range(2)]  # fmt: skip
    assert json.loads(server.bodies[-1])["messages"] == [
        {"role": "user", "content": "How much?"},
        {"role": "assistant", "content": "So.", "reasoning_content": "Let me see.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_0", "content": "0"},
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
    ]


def test_a_server_that_tells_which_sequence_ended_the_text(bridged: tuple[StandIn, anthropic.Anthropic]) -> None:
    server, client = bridged
    for found, reason in (("END", "stop_sequence"), (2, "end_turn"), (None, "end_turn")):
        text = {"message": {"role": "assistant", "content": "x"}, "stop_reason": found}
        server.rows = lambda _, text=text: whole("stop", **text)  # type: ignore[misc]
        assert client.messages.create(**ASK, stop_sequences=["END"]).stop_reason == reason
    server.rows = lambda _: stream_of(chunk(content="x"), chunk("stop", "END"), *END[1:])
    with client.messages.stream(**ASK, stop_sequences=["END"]) as stream:
        message = stream.get_final_message()
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")


@pytest.mark.parametrize(
    ("pieces", "cut", "said"),
    [
        ([event({"error": {"message": "CUDA error", "code": 500}})], None, "CUDA error"),
        ([b"data: {]\n\n"], None, "cannot be read"),
        ([chunk(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]), *END], None, "mixed up"),
        ([], None, "in the middle"),
        (END, 60, "the server"),
    ],
)  # fmt: skip
def test_what_fails_within_a_stream_is_told_in_it(
    bridged: tuple[StandIn, anthropic.Anthropic], pieces: list[bytes], cut: int | None, said: str
) -> None:
    server, client = bridged
    before = b"".join(PIECES)
    server.rows = lambda _: stream_of(*PIECES, *pieces, cut=cut and len(before) + cut)
    seen = []
    with pytest.raises(anthropic.APIStatusError) as failed:
        for each in client.messages.create(**ASK, tools=TOOLS, stream=True):
            seen.append(each.type)
    assert said in (failed.value.api_message or "") and failed.value.type == "api_error"
    assert seen.count("content_block_start") == 4 and "message_stop" not in seen


def test_what_the_server_refuses_is_said_in_its_words(bridged: tuple[StandIn, anthropic.Anthropic]) -> None:
    server, client = bridged
    server.rows = lambda _: Play(400, json.dumps({"error": {"message": "no eyes", "code": 400}}).encode())
    for stream in (False, True):
        with pytest.raises(anthropic.BadRequestError, match="no eyes"):
            client.messages.create(**ASK, stream=stream)


def test_a_batch_of_tool_calls_and_failures(bridged: tuple[StandIn, anthropic.Anthropic]) -> None:
    server, client = bridged
    odd = {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "not JSON"}}]}  # fmt: skip

    def answer(_: int) -> Play:
        return whole(message=odd) if b'"odd"' in server.bodies[-1] else whole()

    server.rows = answer
    requests: list[Any] = [
        {"custom_id": name, "params": ASK | {"tools": TOOLS, "messages": [{"role": "user", "content": name}]}}
        for name in ("good", "odd")
    ]
    batch = client.messages.batches.create(requests=requests)
    while client.messages.batches.retrieve(batch.id).processing_status != "ended":
        time.sleep(0.05)
    found = {line.custom_id: line.result for line in client.messages.batches.results(batch.id)}
    assert found["good"].type == "succeeded" and told(found["good"].message) == SAID
    assert found["odd"].type == "errored" and "no JSON object" in found["odd"].error.error.message
    client.messages.batches.delete(batch.id)


def test_models_are_listed_for_the_sdk(bridged: tuple[StandIn, anthropic.Anthropic]) -> None:
    assert [model.id for model in bridged[1].models.list()] == ["smollm2"]
