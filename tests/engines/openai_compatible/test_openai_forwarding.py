"""Requests pass through as they came, and so do answers: over a stand-in, from the HTTP API and from a batch."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai_stand_in import Play, StandIn, recording

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.retry import RetryPolicy
from gristmill.dispatch.stop import Stop
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.openai_compatible.engine import OpenAICompatibleEngine, OpenAICompatibleOptions
from gristmill.engines.openai_compatible.forwarding import MAX_ANSWER_BYTES, events, read_answer
from gristmill.engines.protocol import ForwardRequest, OnEvent
from gristmill.inference.forwarding import chat_request
from gristmill.user_error import UserError
from requests_jsonl import jsonl
from server_process import ServerProcess

CHAT = "/v1/chat/completions"
#: What Gristmill has no name for, and JSON that would not be written the same way again.
REQUEST = (
    b'{ "model" : "smollm2", "messages":[{"role":"user","content":[{"type":"text","text":"What? \\u00e9 \xc3\xa9"},'
    b'{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},'
    b'{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]},'
    b'{"role":"assistant","content":null,"reasoning_content":"Hm.","tool_calls":[{"id":"c","type":"function",'
    b'"function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"4"}],'
    b'"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],'
    b'"top_k":20, "min_p": 1.0e-1, "chat_template_kwargs":{"enable_thinking":false},"reasoning_effort":"low",'
    b'"n": 2, "vendor":{"big":123456789012345678901234567890}}'
)
USAGE = {
    "prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 5},
}  # fmt: skip
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": "\u2028"}'}}


def answer(reason: str | None = "tool_calls", **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "reasoning_content": "Let me see.", "tool_calls": [CALL]}
    choice = {"index": 0, "message": message, "finish_reason": reason, "stop_reason": 7}
    whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "other-name", "choices": [choice]}
    return {**whole, "usage": USAGE, "timings": {"predicted_ms": 1.50}, **fields}


def encoded(body: Any, **options: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, **options).encode()


ANSWER = encoded(answer(), indent=1)


def event(data: Any) -> bytes:
    return b"data: " + encoded(data) + b"\n\n"


def chunk(reason: str | None = None, index: int = 0, **delta: Any) -> bytes:
    return event({"id": "x", "choices": [{"index": index, "delta": delta, "finish_reason": reason}], "vendor": 1.0})


STREAM = b"".join(
    (b": keep-alive\n\n", chunk(role="assistant"), chunk(reasoning_content="Let \u2028 me"), chunk(tool_calls=[CALL]),
     chunk("tool_calls"), b"event: x\r\ndata: " + encoded({"choices": [], "usage": USAGE}) + b"\r\n\r\n",
     b"data: [DONE]\n\n")
)  # fmt: skip


def stream(body: bytes = STREAM, cut: int | None = None) -> Play:
    return Play(200, body, {"Content-Type": "text/event-stream"}, cut)


@asynccontextmanager
async def started(*servers: StandIn, **options: str) -> AsyncIterator[OpenAICompatibleEngine]:
    engine = OpenAICompatibleEngine(
        OpenAICompatibleOptions.parse({name.replace("__", "."): value for name, value in options.items()}),
        ",".join(server.url for server in servers),
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def request(body: bytes = REQUEST) -> ForwardRequest:
    return chat_request(CHAT, body)


def streamed() -> ForwardRequest:
    return request(REQUEST[:-1] + b',"stream":true}')


async def refusal(
    engine: OpenAICompatibleEngine, asked: ForwardRequest | None = None, on_event: OnEvent | None = None
) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await engine.forward(asked or request(), on_event)
    return caught.value


async def test_body_and_answer_pass_byte_for_byte_and_what_is_counted_is_read():
    with StandIn(lambda _: Play(200, ANSWER)) as server:
        async with started(server) as engine:
            found = await engine.forward(request())
        assert server.bodies[-1] == REQUEST
    assert found.body == ANSWER
    assert (found.prompt_tokens, found.cached_tokens, found.completion_tokens) == (9, 4, 7)


async def test_a_stream_passes_byte_for_byte():
    said: list[bytes] = []
    with StandIn(lambda _: stream()) as server:
        async with started(server) as engine:
            found = await engine.forward(streamed(), said.append)
        assert server.bodies[-1] == streamed().body
    assert b"".join(said) == STREAM and len(said) == 7
    assert (found.prompt_tokens, found.cached_tokens, found.completion_tokens) == (9, 4, 7)


async def test_events_are_the_same_however_the_stream_is_cut():
    for size in (1, 2, 3, 5, 7, 1000):

        async def pieces(size: int = size) -> AsyncIterator[bytes]:
            for start in range(0, len(STREAM), size):
                yield STREAM[start : start + size]

        found = [each async for each in events(pieces())]
        assert b"".join(found) == STREAM and len(found) == 7, size


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {}}, {"usage": {"prompt_tokens_details": None}}])
async def test_tokens_that_the_server_does_not_report_are_unknown(usage):
    body = {name: value for name, value in answer().items() if name != "usage"} | usage
    with StandIn(lambda _: Play(200, encoded(body))) as server:
        async with started(server) as engine:
            found = await Dispatcher(engine).ask(request(), Stop())
    assert (found.prompt_tokens, found.cached_tokens, found.completion_tokens) == (None, None, None)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>502", ErrorKind.INTERRUPTED),
        (b"", ErrorKind.INTERRUPTED),
        (b"[]", ErrorKind.INTERRUPTED),
        (b"{}", ErrorKind.INTERRUPTED),
        (b"[" * 100_000, ErrorKind.INTERRUPTED),
        (ANSWER[:-2], ErrorKind.INTERRUPTED),
        (ANSWER.replace(b"Let me", b"\xff\xfe"), ErrorKind.INTERRUPTED),
        (ANSWER.replace(b"Let me", b"a\nb"), ErrorKind.INTERRUPTED),
        (encoded(answer(None)), ErrorKind.INTERRUPTED),
        (encoded(answer("abort")), ErrorKind.INTERRUPTED),
        (encoded(answer(choices=[])), ErrorKind.INTERRUPTED),
        (encoded({"error": {"message": "no such tool", "code": 400}}), ErrorKind.INVALID_REQUEST),
        (encoded({"error": "out of memory"}), ErrorKind.INTERRUPTED),
        (b"[" + b" " * MAX_ANSWER_BYTES + b"]", ErrorKind.INVALID_REQUEST),
    ],
    ids=range(14),
)  # fmt: skip
async def test_what_is_no_answer_is_an_error_of_its_kind(body, kind):
    with StandIn(lambda _: Play(200, body)) as server:
        async with started(server) as engine:
            assert (await refusal(engine)).kind is kind
            assert "maximum" in (await refusal(engine)).message or len(body) < MAX_ANSWER_BYTES


@pytest.mark.parametrize(
    ("body", "passed", "message"),
    [
        (chunk(role="assistant") + event({"error": {"message": "CUDA error", "code": 500}}), 1, "CUDA error"),
        (chunk(role="assistant") + b"data: {]\n\n" + b"data: [DONE]\n\n", 1, "cannot be read"),
        (chunk(role="assistant") + chunk(content="a"), 2, "in the middle"),
        (chunk(content="a") + chunk(index=1, content="b") + chunk("stop"), 3, "in the middle"),
        (chunk(role="assistant") + chunk("abort"), 1, "abort"),
        (event({"error": {"message": "no tools here", "code": 400}}), 0, "no tools here"),
        (ANSWER, 1, "in the middle"),
    ],
    ids=range(7),
)
async def test_a_stream_that_fails_is_passed_on_as_far_as_it_was_good(body, passed, message):
    said: list[bytes] = []
    with StandIn(lambda _: stream(body)) as server:
        async with started(server) as engine:
            error = await refusal(engine, streamed(), said.append)
    assert message in error.message and len(said) == passed


async def test_a_refusal_is_in_the_servers_own_words_and_asked_for_once():
    words = {"error": {"message": "tools: only with --jinja", "type": "x", "param": "tools", "code": "no_tools"}}
    with StandIn(lambda _: Play(422, encoded(words))) as server:
        async with started(server) as engine:
            with pytest.raises(EngineError) as caught:
                await Dispatcher(engine).ask(request(), Stop())
        assert server.asked == 1
    error = caught.value
    assert (error.status, error.param, error.code) == (422, "tools", "no_tools")
    assert error.message == words["error"]["message"]


async def test_an_image_for_a_model_without_eyes_is_the_callers_mistake_and_asked_for_once():
    # As llama.cpp's server (b11434) answers.
    words = {"error": {"code": 500, "message": "image input is not supported - hint: mmproj", "type": "server_error"}}
    with StandIn(lambda _: Play(500, encoded(words))) as server:
        async with started(server) as engine:
            with pytest.raises(EngineError, match="^image input is not supported") as caught:
                await Dispatcher(engine).ask(request(), Stop())
        assert (caught.value.status, server.asked) == (400, 1)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("body.top_k", "many", "not JSON"),
        ("body.x", "", "not JSON"),
        ("body.", "1", "names no field"),
        ("default_body.a..b", "1", "names no field"),
        ("body.stream", "true", "for each request"),
        ("default_body.model", '"m"', "for each request"),
        ("body", "{}", "has no option 'body'. Its options are: .*body.NAME"),
    ],
)
def test_an_operators_field_that_cannot_be_set_is_told_so(option, value, message):
    with pytest.raises(UserError, match=message):
        OpenAICompatibleOptions.parse({option: value})


async def test_a_broken_answer_is_tried_again_and_a_busy_server_left_for_a_free_one():
    def rows(number: int) -> Play:
        return Play(200, ANSWER, cut=40) if number < 2 else Play(200, ANSWER)

    policy = RetryPolicy(first_delay=0.01, max_delay=0.01)
    with StandIn(rows) as server:
        async with started(server) as engine:
            assert (await Dispatcher(engine, policy=policy).ask(request(), Stop())).body == ANSWER
        assert server.asked == 3
    with StandIn(lambda _: Play(503, b"busy", {"Retry-After": "30"})) as busy, StandIn(rows) as free:
        free.rows = lambda _: Play(200, ANSWER)
        async with started(busy, free) as engine:
            found = await asyncio.gather(*(engine.forward(request()) for _ in range(8)))
        assert [each.body for each in found] == [ANSWER] * 8 and free.asked == 8


async def test_the_operators_fields_are_set_and_everything_else_is_as_it_came():
    pins = {
        "body.chat_template_kwargs.enable_thinking": "true", "body.top_k": " 7 ", "body.added.deep": '{"a": [1]}',
        "default_body.reasoning_effort": '"high"', "default_body.seed": "5",
        "default_body.vendor.big": "1", "default_body.vendor.small": "2",
    }  # fmt: skip
    with StandIn(lambda _: Play(200, ANSWER)) as server:
        async with started(server, **pins) as engine:
            await engine.forward(request())
        sent = server.bodies[-1]
    wanted = json.loads(REQUEST) | {"top_k": 7, "added": {"deep": {"a": [1]}}, "seed": 5}
    wanted["chat_template_kwargs"] = {"enable_thinking": True}
    wanted["vendor"]["small"] = 2
    assert json.loads(sent) == wanted
    assert b'"min_p":1.0e-1' in sent and b"\\u00e9 \xc3\xa9" in sent


async def test_vllms_structured_outputs_reach_a_server_that_does_not_know_them():
    with StandIn(lambda _: Play(200, ANSWER)) as server:
        async with started(server) as engine:
            await engine.forward(request(REQUEST[:-1] + b',"structured_outputs":{"choice":["a"]}}'))
            assert json.loads(server.bodies[-1]) == json.loads(REQUEST) | {"grammar": 'root ::= "a"'}
            asked = request(REQUEST[:-1] + b',"structured_outputs":{"regex":"a"}}')
            assert (await refusal(engine, asked)).param == "structured_outputs.regex"
            # In a text it is a text.
            talk = REQUEST.replace(b"Hm.", b'\\"structured_outputs\\"')
            await engine.forward(request(talk))
            assert server.bodies[-1] == talk


@pytest.fixture
def server(tmp_path: Path):
    with StandIn(lambda _: Play(200, ANSWER)) as behind:
        options = ("--engine", "openai_compatible", "--url", behind.url)
        with ServerProcess(tmp_path / "data", *options) as front:
            yield behind, front


def test_the_api_passes_bodies_and_streams_through(server):
    behind, front = server
    with httpx.Client(base_url=front.base_url, headers={"content-type": "application/json"}) as http:
        whole = http.post("/chat/completions", content=REQUEST)
        assert whole.content == ANSWER and whole.headers["content-type"] == "application/json"
        assert behind.bodies[-1] == REQUEST
        prompts = b'{"model":"smollm2", "prompt":["a","b"],"top_k":3,"n":2}'
        assert http.post("/completions", content=prompts).content == ANSWER
        assert behind.bodies[-1] == prompts

        behind.rows = lambda _: stream()
        came = http.post("/chat/completions", content=streamed().body)
        assert came.content == STREAM and came.headers["content-type"].startswith("text/event-stream")

        behind.rows = lambda _: stream(chunk(content="a") + event({"error": {"message": "CUDA", "code": 500}}))
        broken = http.post("/chat/completions", content=streamed().body).content
        assert broken.startswith(chunk(content="a")) and b"CUDA" in broken and broken.endswith(b"}}\n\n")

        behind.rows = lambda _: Play(400, encoded({"error": {"message": "no eyes", "param": "messages"}}))
        for body in (REQUEST, streamed().body):
            refused = http.post("/chat/completions", content=body)
            assert (refused.status_code, refused.json()["error"]["message"]) == (400, "no eyes")

        asked = behind.asked
        for wrong in (b"{", b"[]", b'{"model":"smollm2"}', b'{"model":1,"messages":[]}', b'{"messages":[]}',
                      b'{"model":"smollm2","messages":"x"}', b'{"model":"smollm2","messages":[],"x":"\xff"}',
                      b'{"model":"smollm2","messages":[],"store":true}',
                      b'{"model":"smollm2","messages":[],"stream":"yes"}', b'{"model":"other","messages":[]}',
                      b'{"model":"smollm2","messages":' + b"[" * 100_000 + b"}"):  # fmt: skip
            answered = http.post("/chat/completions", content=wrong)
            assert 400 <= answered.status_code < 500, wrong[:60]
        assert behind.asked == asked


def test_a_model_asked_for_by_an_alias_is_asked_for_by_its_own_name(tmp_path):
    hi = [{"role": "user", "content": "Hi"}]
    with StandIn(lambda _: Play(200, ANSWER)) as behind:
        options = ("--engine", "openai_compatible", "--url", behind.url, "--alias", "gpt-4o=smollm2")
        with ServerProcess(tmp_path / "data", *options) as front, front.client() as client:
            client.chat.completions.create(model="gpt-4o", messages=hi, extra_body={"k": 1})
            with pytest.raises(openai.NotFoundError, match="gpt-4o"):
                client.chat.completions.create(model="other", messages=hi)
        assert json.loads(behind.bodies[-1]) == {"model": "smollm2", "messages": hi, "k": 1}


def test_the_official_client_gets_tool_calls_and_reasoning_also_streamed(server):
    behind, front = server
    with front.client() as client:
        body = json.loads(REQUEST)
        vendor = {name: body.pop(name) for name in ("top_k", "min_p", "chat_template_kwargs", "vendor")}
        whole = client.chat.completions.create(**body, extra_body=vendor)
        assert whole.choices[0].message.tool_calls[0].function.name == "f"
        assert whole.choices[0].message.reasoning_content == "Let me see."
        assert whole.usage.completion_tokens_details.reasoning_tokens == 5
        assert json.loads(behind.bodies[-1]) == json.loads(REQUEST)
        behind.rows = lambda _: stream()
        chunks = list(client.chat.completions.create(**body, extra_body=vendor, stream=True))
        assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 4
        assert any(each.choices and each.choices[0].delta.tool_calls for each in chunks)
        behind.rows = lambda _: Play(400, encoded({"error": {"message": "no eyes"}}))
        with pytest.raises(openai.BadRequestError, match="no eyes"):
            client.chat.completions.create(**body)


def test_the_lines_of_a_batch_pass_through_and_stay_lines(tmp_path):
    def rows(number: int) -> Play:
        refused = Play(400, encoded({"error": {"message": "row two has no eyes", "code": "no_eyes"}}))
        return refused if number == 1 else Play(200, ANSWER)

    line = {"custom_id": "", "method": "POST", "url": CHAT}
    lines = [{**line, "custom_id": f"r{n}", "body": json.loads(REQUEST) | {"user": str(n)}} for n in range(3)]
    wanted, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    wanted.write_bytes(jsonl(lines))
    with StandIn(rows) as server:
        command = [sys.executable, "-m", "gristmill", "run", str(wanted), "-o", str(output), "--url", server.url]
        command += ["--engine", "openai_compatible", "-O", "parallel=1", "-O", "body.top_k=5"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        sent = json.loads(server.bodies[-1])
    assert sent == json.loads(REQUEST) | {"user": "2", "top_k": 5}, done.stderr
    data = output.read_bytes()
    assert data.isascii() and len(data.decode().splitlines()) == 2
    bodies = [json.loads(each)["response"]["body"] for each in data.splitlines()]
    assert bodies == [json.loads(ANSWER)] * 2
    # Numbers stay as they were written.
    assert b'"predicted_ms": 1.5' in data


@pytest.mark.parametrize(
    ("pinned", "asked"), [((), 1), (("-O", "body.temperature=1"), 4), (("-O", "body.temperature=0"), 1)]
)
def test_a_pinned_temperature_decides_whether_rows_that_ask_the_same_are_asked_once(tmp_path, pinned, asked):
    own = {"temperature": 1} if "body.temperature=0" in pinned else {"temperature": 0}
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "A river?"}], **own}
    wanted, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    wanted.write_bytes(jsonl([{"custom_id": f"r{n}", "method": "POST", "url": CHAT, "body": body} for n in range(4)]))
    with StandIn(lambda _: Play(200, ANSWER)) as server:
        command = [sys.executable, "-m", "gristmill", "run", str(wanted), "-o", str(output), "--url", server.url]
        command += ["--engine", "openai_compatible", "-O", "parallel=1", *pinned]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert len(output.read_bytes().splitlines()) == 4
        assert sum(b"A river?" in each for each in server.bodies) == asked


@pytest.mark.parametrize("server", ["llama.cpp", "vLLM"])
def test_the_recorded_answers_of_real_servers_pass(server):
    for name in ("chat", "schema"):
        body = recording(name, server).body
        assert read_answer(CHAT, body).prompt_tokens == json.loads(body)["usage"]["prompt_tokens"]
