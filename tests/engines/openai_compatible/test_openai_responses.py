"""Responses in front of a server: over its chats, or passed through where it has responses itself.

The official client checks strictly what comes back, from a real server process over a stand-in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai_stand_in import Play, StandIn

from requests_jsonl import jsonl
from server_process import ServerProcess

USAGE = {
    "prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16, "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}  # fmt: skip
CALLS = [{"index": i, "id": f"call_{i}", "type": "function", "function": {"name": "f", "arguments": f'{{"x": {i}}}'}}
         for i in range(2)]  # fmt: skip
MESSAGE = {"role": "assistant", "content": "So.", "reasoning_content": "Let me see.", "tool_calls": CALLS}
LOGPROBS = {"content": [{"token": "So", "logprob": -0.5, "bytes": [83, 111], "top_logprobs": []},
                        {"token": ".", "logprob": -1, "top_logprobs": [{"token": "!", "logprob": -2}]}]}  # fmt: skip
TOOLS: list[Any] = [
    {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}
]
ASK: dict[str, Any] = {"model": "smollm2", "input": "How much?"}


def whole(reason: str = "tool_calls") -> Play:
    choices = [{"index": 1, "message": {"role": "assistant", "content": "not asked for"}, "finish_reason": "stop"},
               {"index": 0, "message": MESSAGE, "finish_reason": reason, "logprobs": LOGPROBS}]  # fmt: skip
    return Play(200, json.dumps({"model": "its own name", "choices": choices, "usage": USAGE}).encode())


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(reason: str | None = None, logprobs: Any = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": logprobs}
    return event({"id": "x", "model": "its own name", "choices": [choice]})


def arguments(index: int, text: str) -> bytes:
    return chunk(tool_calls=[{"index": index, "function": {"arguments": text}}])


def begun(index: int) -> bytes:
    return chunk(tool_calls=[CALLS[index] | {"function": {"name": "f", "arguments": ""}}])


PIECES = [
    b": keep-alive\n\n", chunk(role="assistant", content=""), chunk(reasoning_content="Let me"),
    event({"choices": [{"index": 1, "delta": {"content": "not asked for"}, "finish_reason": None}]}),
    chunk(reasoning=" see."), *(chunk(content=text, logprobs={"content": [token]})
                                for text, token in zip(("So", "."), LOGPROBS["content"], strict=True)),
    begun(0), arguments(0, '{"x"'), begun(1), arguments(1, '{"x": '), arguments(0, ": 0}"), arguments(1, "1}"),
]  # fmt: skip
END = [chunk("tool_calls"), event({"choices": [], "usage": USAGE}), b"data: [DONE]\n\n"]
#: Of OpenAI's own documentation.
NATIVE: dict[str, Any] = {
    "id": "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b", "object": "response", "created_at": 1741476542,
    "status": "completed", "error": None, "incomplete_details": None, "instructions": None, "max_output_tokens": None,
    "model": "gpt-4.1-2025-04-14", "parallel_tool_calls": True, "previous_response_id": None,
    "output": [{"type": "message", "id": "msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d3795b", "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "In a peaceful grove", "annotations": []}]}],
    "reasoning": {"effort": None, "summary": None}, "store": True, "temperature": 1.0, "top_p": 1.0,
    "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "truncation": "disabled",
    "usage": {"input_tokens": 36, "input_tokens_details": {"cached_tokens": 12}, "output_tokens": 87,
              "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 123}, "user": None, "metadata": {},
    "vendor": 1.50,
}  # fmt: skip


def named(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\n".encode() + event({"type": kind, **fields})


@contextmanager
def serving(
    server: StandIn, data: Path, *options: str, strict: bool = True
) -> Iterator[tuple[ServerProcess, openai.OpenAI]]:
    running = ServerProcess(data, "--engine", "openai_compatible", "--url", server.url, *options)
    with running:
        yield (
            running,
            openai.OpenAI(
                base_url=running.base_url, api_key="unused", max_retries=0, _strict_response_validation=strict
            ),
        )


@pytest.fixture(scope="module")
def bridged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StandIn, openai.OpenAI]]:
    with StandIn() as server, serving(server, tmp_path_factory.mktemp("data")) as (_, client):
        yield server, client


def stream_of(*pieces: bytes, cut: int | None = None) -> Play:
    return Play(200, b"".join(pieces), {"Content-Type": "text/event-stream"}, cut)


def told(response: Any) -> list[Any]:
    found: list[Any] = []
    for item in response.output:
        if item.type == "reasoning":
            found.append(("reasoning", [part.text for part in item.content], [part.text for part in item.summary]))
        elif item.type == "message":
            found.append(("message", [(part.text, [token.token for token in part.logprobs]) for part in item.content]))
        else:
            found.append((item.call_id, item.name, item.arguments))
    return found


SAID = [("reasoning", ["Let me see."], []), ("message", [("So.", ["So", "."])]), ("call_0", "f", '{"x": 0}'),
        ("call_1", "f", '{"x": 1}')]  # fmt: skip


def test_a_chat_answer_becomes_items(bridged: tuple[StandIn, openai.OpenAI]) -> None:
    server, client = bridged
    server.rows = lambda _: whole()
    response = client.responses.create(
        **ASK, tools=TOOLS, tool_choice="required", reasoning={"effort": "low"},
        include=["message.output_text.logprobs"],
        extra_body={"top_k": 3, "chat_template_kwargs": {"enable_thinking": True}},
    )  # fmt: skip
    assert told(response) == SAID and response.status == "completed" and response.model == "its own name"
    usage = response.usage
    assert usage is not None and (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (9, 7, 16)
    assert (usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens) == (4, 5)
    function = {"name": "f", "parameters": TOOLS[0]["parameters"], "strict": False}
    assert json.loads(server.bodies[-1]) == {
        "model": "smollm2", "messages": [{"role": "user", "content": "How much?"}], "tool_choice": "required",
        "tools": [{"type": "function", "function": function}], "reasoning_effort": "low", "logprobs": True, "top_k": 3,
        "chat_template_kwargs": {"enable_thinking": True},
    }  # fmt: skip


def test_a_stream_of_chunks_becomes_events(bridged: tuple[StandIn, openai.OpenAI]) -> None:
    server, client = bridged
    server.rows = lambda _: stream_of(*PIECES, *END)
    events = list(client.responses.create(**ASK, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed" and told(events[-1].response) == SAID
    assert json.loads(server.bodies[-1])["stream_options"] == {"include_usage": True}
    with client.responses.stream(**ASK, reasoning={"summary": "auto"}) as stream:
        response = stream.get_final_response()
    assert told(response) == [("reasoning", [], ["Let me see."]), *SAID[1:]]
    assert response.usage is not None and response.usage.input_tokens_details.cached_tokens == 4


def test_items_can_be_sent_back_as_they_came(bridged: tuple[StandIn, openai.OpenAI]) -> None:
    server, client = bridged
    server.rows = lambda _: whole()
    response = client.responses.create(**ASK)
    outputs = [{"type": "function_call_output", "call_id": f"call_{i}", "output": str(i)} for i in range(2)]
    items = [{"role": "user", "content": "How much?"}, *(item.model_dump() for item in response.output), *outputs]
    client.responses.create(model="smollm2", input=items)  # type: ignore[arg-type]
    calls = [{key: value for key, value in call.items() if key != "index"} for call in CALLS]
    assert json.loads(server.bodies[-1])["messages"] == [
        {"role": "user", "content": "How much?"},
        {"role": "assistant", "reasoning_content": "Let me see.", "content": "So.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_0", "content": "0"},
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
    ]


@pytest.mark.parametrize(
    ("pieces", "cut", "message"),
    [
        ([event({"error": {"message": "CUDA error", "code": 500}})], None, "CUDA error"),
        ([b"data: {]\n\n"], None, "cannot be read"),
        ([chunk(tool_calls=[{"index": "x"}])], None, "cannot be read"),
        ([], None, "in the middle"),
        ([chunk("abort")], None, "abort"),
        (END, 60, "the server"),
    ],
)  # fmt: skip
def test_what_fails_within_a_stream_is_told_in_it(
    bridged: tuple[StandIn, openai.OpenAI], pieces: list[bytes], cut: int | None, message: str
) -> None:
    server, client = bridged
    before = b"".join(PIECES)
    server.rows = lambda _: stream_of(*PIECES, *pieces, cut=cut and len(before) + cut)
    events = list(client.responses.create(**ASK, stream=True))
    error, failed = events[-2:]
    assert error.type == "error" and message in error.message
    assert failed.type == "response.failed" and failed.response.status == "failed"
    assert failed.response.error is not None and failed.response.error.message == error.message
    assert told(failed.response) == SAID and failed.response.output[-1].status == "incomplete"  # type: ignore[union-attr]


def test_what_fails_before_the_first_piece_is_an_http_error(bridged: tuple[StandIn, openai.OpenAI]) -> None:
    server, client = bridged
    refusal = {"error": {"message": "no tools without --jinja", "param": "messages", "code": "x"}}
    server.rows = lambda _: Play(422, json.dumps(refusal).encode())
    for stream in (True, False):
        with pytest.raises(openai.UnprocessableEntityError, match="no tools without --jinja") as refused:
            client.responses.create(**ASK, stream=stream)
        assert (refused.value.param, refused.value.code) == ("input", "x")
    server.rows = lambda _: stream_of(event({"error": {"message": "no such tool", "code": 400}}))
    with pytest.raises(openai.BadRequestError, match="no such tool"):
        client.responses.create(**ASK, stream=True)


def test_what_a_server_has_itself_passes_through(tmp_path: Path) -> None:
    body = json.dumps(NATIVE, indent=1).encode()
    first = NATIVE | {"status": "in_progress", "usage": None, "output": []}
    sent = b"".join((
        named("response.created", sequence_number=0, response=first),
        named("response.output_text.delta", sequence_number=1, item_id="m", output_index=0, delta="In"),
        named("response.completed", sequence_number=2, response=NATIVE),
    ))  # fmt: skip
    asked = (b'{"model": "smollm2", "input" : [{"role": "user", "content": "Hi"}], "previous_response_id": "resp_1", '
             b'"tools": [{"type": "web_search"}], "store":true%s}')  # fmt: skip
    headers = {"content-type": "application/json"}
    with StandIn() as server:
        server.paths = (*server.paths, "/v1/responses")
        # OpenAI's own example is not what its client's types say today.
        with serving(server, tmp_path / "data", "--alias", "gpt-4o=smollm2", strict=False) as (running, client):
            server.rows = lambda _: Play(200, body)
            answer = httpx.post(f"{running.base_url}/responses", content=asked % b"", headers=headers)
            assert answer.content == body and server.bodies[-1] == asked % b""
            assert client.responses.create(model="gpt-4o", input="Hi").output_text == "In a peaceful grove"
            assert json.loads(server.bodies[-1]) == {"model": "smollm2", "input": "Hi"}
            line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": ASK}
            file = client.files.create(file=("rows.jsonl", jsonl([line])), purpose="batch")
            batch = client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
            for _ in range(500):
                batch = client.batches.retrieve(batch.id)
                if batch.output_file_id is not None:
                    break
                time.sleep(0.02)
            assert batch.usage is not None and batch.output_file_id is not None
            assert (batch.usage.input_tokens, batch.usage.output_tokens) == (36, 87)
            assert batch.usage.input_tokens_details.cached_tokens == 12
            output = json.loads(client.files.content(batch.output_file_id).text)
            assert output["response"]["body"] == NATIVE

            begun = client.responses.create(model="gpt-4o", input="Hi", background=True, store=True)
            while (made := client.responses.retrieve(begun.id)).status in ("queued", "in_progress"):
                time.sleep(0.02)
            assert (made.id, made.background, made.output_text) == (begun.id, True, "In a peaceful grove")
            assert json.loads(server.bodies[-1]) == {"model": "smollm2", "input": "Hi"}
            assert made.model_extra is not None and made.model_extra["vendor"] == 1.5

            server.rows = lambda _: stream_of(sent)
            answer = httpx.post(f"{running.base_url}/responses", content=asked % b', "stream": true', headers=headers)
            assert answer.content == sent
            server.rows = lambda _: stream_of(sent, cut=len(sent) - 10)
            answer = httpx.post(f"{running.base_url}/responses", content=asked % b', "stream": true', headers=headers)
            assert sent[:100] == answer.content[:100] and b'"engine_error"' in answer.content
