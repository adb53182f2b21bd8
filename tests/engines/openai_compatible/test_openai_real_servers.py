"""llama.cpp's server and vLLM, real ones: skipped unless they are built (``make test-engines``)."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from openai_real_server import CONTEXT, KEY, RealServer, llama_cpp, vllm

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.openai_compatible.engine import OpenAICompatibleEngine, OpenAICompatibleOptions
from gristmill.engines.protocol import Request
from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest
from server_process import ServerProcess

pytestmark = pytest.mark.real_engine

SERVERS: dict[str, Callable[[Path], RealServer]] = {
    "llama.cpp-smollm2": lambda log: llama_cpp("smollm2-135m-instruct", log),
    "llama.cpp-gemma3": lambda log: llama_cpp("gemma3-270m", log),
    "vllm": vllm,
}
#: About 500 tokens, as a rubric has them.
RUBRIC = "Rate each candidate by experience, education and clarity of writing. " * 40


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with SERVERS[request.param](tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_ENGINE_KEY", KEY)


@asynccontextmanager
async def started(*servers: RealServer) -> AsyncIterator[OpenAICompatibleEngine]:
    urls = ",".join(server.url for server in servers)
    engine = OpenAICompatibleEngine(OpenAICompatibleOptions(api_key_env="TEST_ENGINE_KEY"), urls)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def chat(server: RealServer, text: str, **parameters: object) -> Request:
    messages = [Message("system", RUBRIC), Message("user", text)]
    return ChatCompletionRequest(messages, server.model, temperature=0.0, **parameters)  # type: ignore[arg-type]


async def test_what_the_server_can_do_is_found_out(server):
    async with started(server) as engine:
        assert engine.models == (server.model,)
        assert engine.capabilities.context_length == CONTEXT
        assert {"logprobs", "top_logprobs", "response_format", "n"} <= engine.capabilities.parameters
        slots = (engine.capabilities.slots, engine.capabilities.slots_known)
        assert slots == ((256, False) if server.kind == "vllm" else (2, True))


async def test_the_shared_prefix_is_computed_once_and_its_tokens_are_counted(server):
    async with started(server) as engine:
        prefix = f"{server.url}: "
        first = await engine.complete(chat(server, prefix + "Ann, 3 years.", max_tokens=2))
        second = await engine.complete(chat(server, prefix + "Bob, 9 years.", max_tokens=2))
    assert first.completion_tokens == second.completion_tokens == 2
    assert second.cached_tokens is not None and second.cached_tokens > 0.7 * second.prompt_tokens


async def test_what_is_streamed_is_what_is_answered(server):
    said: list[str] = []
    async with started(server) as engine:
        answer = await engine.complete(chat(server, "Who?", max_tokens=6), lambda delta: said.append(delta.text))
    assert "".join(said) == answer.choices[0].text != ""
    assert answer.choices[0].finish_reason == "length" and answer.completion_tokens == 6


async def test_log_probabilities_come_with_chat_and_text(server):
    async with started(server) as engine:
        chatted = await engine.complete(chat(server, "Score?", max_tokens=1, logprobs=True, top_logprobs=3))
        bare = await engine.complete(chat(server, "Score?", max_tokens=1, logprobs=True))
        text = await engine.complete(
            CompletionRequest("Water is", server.model, max_tokens=2, logprobs=2, temperature=0.0)
        )
    (token,) = chatted.choices[0].logprobs or []
    assert token.logprob == pytest.approx(max(each.logprob for each in token.top_logprobs)) and token.logprob <= 0
    assert len(token.top_logprobs) == 3 and token.token == chatted.choices[0].text
    assert [each.top_logprobs for each in bare.choices[0].logprobs or []] == [[]]
    assert [len(each.top_logprobs) for each in text.choices[0].logprobs or []] == [2, 2]


async def test_a_structure_is_kept_to(server):
    schema = {"type": "object", "properties": {"score": {"enum": [0, 5, 10]}}, "required": ["score"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "rating", "schema": schema}}
    async with started(server) as engine:
        choice = await engine.complete(
            chat(server, "Which?", max_tokens=8, structured_outputs={"choice": ["weak", "strong"]})
        )
        rated = await engine.complete(chat(server, "Rate Ann.", max_tokens=60, response_format=wanted))
    assert choice.choices[0].text.strip() in ("weak", "strong")
    if rated.choices[0].finish_reason == "stop":  # a base model may fill its tokens with blanks, which JSON allows
        assert json.loads(rated.choices[0].text)["score"] in (0, 5, 10)
    else:
        assert rated.choices[0].text.strip()[:1] in ("{", "")


async def test_two_choices_are_two(server):
    async with started(server) as engine:
        request = ChatCompletionRequest([Message("user", "Hello")], server.model, max_tokens=3, n=2, temperature=1.0)
        assert len((await engine.complete(request)).choices) == 2


async def test_the_callers_mistakes_are_his_and_not_tried_again(server):
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "boolen"}}}
    async with started(server) as engine:
        with pytest.raises(EngineError) as too_long:
            await engine.complete(chat(server, "word " * 2 * CONTEXT, max_tokens=2))
        with pytest.raises(EngineError) as bad_schema:
            await engine.complete(chat(server, "Rate Ann.", max_tokens=2, response_format=schema))
    assert too_long.value.kind is bad_schema.value.kind is ErrorKind.INVALID_REQUEST
    assert too_long.value.code == "context_length_exceeded"


async def test_without_the_key_the_start_says_what_to_do(server):
    with pytest.raises(UserError, match="api_key_env"):
        await OpenAICompatibleEngine(OpenAICompatibleOptions(), server.url).start()


TOOLS = [{"type": "function", "function": {
    "name": "rate", "description": "Rate a candidate.",
    "parameters": {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]},
}}]  # fmt: skip
SHAPE = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "check", "schema": SHAPE}}
ASKED: dict[str, dict[str, Any]] = {
    "vendor": {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.1, "chat_template_kwargs": {"enable_thinking": False}},
    "tools": {"tools": TOOLS, "tool_choice": "required"},
    "tools-auto": {"tools": TOOLS, "parallel_tool_calls": False},
    "format": {"response_format": FORMAT},
    "logprobs": {"logprobs": True, "top_logprobs": 2, "n": 1},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Is water"},
                                                        {"type": "text", "text": "wet?"}]}]},
    "image": {"messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]}]},
    "mistake": {"messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_schema"}},
    "unknown-role": {"messages": [{"role": "narrator", "content": "Hi"}]},
}  # fmt: skip
#: What two answers to the same request differ in.
OWN = ("id", "created", "timings")


def comparable(answer: Any) -> Any:
    if isinstance(answer, dict):
        found = {name: comparable(value) for name, value in answer.items() if name not in OWN}
        if isinstance(found.get("usage"), dict):
            found["usage"].pop("prompt_tokens_details", None)
        return found
    return [comparable(each) for each in answer] if isinstance(answer, list) else answer


def said_by(answer: httpx.Response) -> Any:
    """The answer or its events, without ids and times; of an error, the words: llama.cpp's server has a 500 for images
    that the model cannot see."""
    if answer.status_code != 200:
        return answer.json()["error"]["message"]
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return comparable(answer.json())
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else comparable(json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def front(server: RealServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--engine", "openai_compatible", "--url", server.url, "-O", "api_key_env=TEST_ENGINE_KEY")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_ENGINE_KEY", KEY)
        with ServerProcess(tmp_path_factory.mktemp("front") / "data", *options) as running:
            yield running


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("what", ASKED)
def test_an_answer_through_us_is_the_servers_own(server, front, what, streamed):
    body = {"model": server.model, "messages": [{"role": "user", "content": "Is water wet?"}], "max_tokens": 24}
    body |= {"temperature": 0, "seed": 1, "cache_prompt": False, **ASKED[what]}
    if streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    with httpx.Client(timeout=120, headers={"Authorization": f"Bearer {KEY}"}) as http:
        direct = http.post(f"{server.url}/v1/chat/completions", json=body)
        through = http.post(f"{front.base_url}/chat/completions", json=body)
    assert said_by(through) == said_by(direct)
    assert through.status_code == (400 if what == "image" else direct.status_code)
    if direct.status_code == 200 and not streamed:
        assert list(through.json()) == list(direct.json())
        assert through.headers["content-type"].split(";")[0] == direct.headers["content-type"].split(";")[0]


MESSAGES: dict[str, dict[str, Any]] = {
    "plain": {"messages": [{"role": "user", "content": "Is water wet?"}]},
    "system": {"system": "Be brief.", "messages": [{"role": "user", "content": "Is water wet?"}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Is water"},
                                                        {"type": "text", "text": "wet?"}]}]},
    "tool": {"tool_choice": {"type": "any"}, "messages": [{"role": "user", "content": "Rate candidate 7."}]},
    "results": {"messages": [
        {"role": "user", "content": "Rate candidate 7."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "rate", "input": {"score": 3}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "stored"}]}]},
}  # fmt: skip


@pytest.mark.parametrize("what", MESSAGES)
def test_a_message_over_its_chats_is_the_one_of_the_servers_own(server, front, what):
    tools = [{"name": "rate", "input_schema": TOOLS[0]["function"]["parameters"]}]
    asked = {"model": server.model, "max_tokens": 16, "extra_body": {"temperature": 0}, **MESSAGES[what]}
    asked |= {"tools": tools} if what in ("tool", "results") else {}
    said = []
    # What a slot has read before is rounded differently from what it reads anew: it has read this one before all four.
    anthropic.Anthropic(base_url=server.url, api_key=KEY, timeout=120).messages.create(**asked)
    for root in (server.url, front.base_url.removesuffix("/v1")):
        client = anthropic.Anthropic(base_url=root, api_key=KEY, timeout=120)
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        for message in (client.messages.create(**asked), streamed):
            content = [block.to_dict() for block in message.content]
            usage = message.usage
            read = usage.input_tokens + (usage.cache_read_input_tokens or 0)
            said.append(([{**block, "id": None, "citations": None} for block in content], message.stop_reason, read,
                         usage.output_tokens))  # fmt: skip
    # vLLM's own two ways tell a call that was cut off in different words.
    assert said[2:] == said[:2]


def test_a_batch_runs_through(server, tmp_path):
    rows = [f"Candidate {index}: {index} years of experience." for index in range(8)]
    lines = [
        {"custom_id": f"row-{index}", "method": "POST", "url": "/v1/chat/completions", "body": {
            "model": server.model, "max_tokens": 4, "temperature": 0,
            "messages": [{"role": "system", "content": RUBRIC}, {"role": "user", "content": text}],
        }}
        for index, text in enumerate(rows)
    ]  # fmt: skip
    wanted, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    wanted.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "gristmill", "run", str(wanted), "-o", str(output), "--url", server.url]
    command += ["--engine", "openai_compatible", "-O", "api_key_env=TEST_ENGINE_KEY"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [answer["custom_id"] for answer in answers] == [line["custom_id"] for line in lines]
    usages = [answer["response"]["body"]["usage"] for answer in answers]
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    assert cached > 0.5 * sum(usage["prompt_tokens"] for usage in usages)


async def test_a_real_server_that_dies_is_an_outage_and_not_a_failed_row(tmp_path):
    with llama_cpp("smollm2-135m-instruct", tmp_path / "log") as server:
        async with started(server) as engine:
            row = asyncio.create_task(engine.complete(chat(server, "Tell a long story.", max_tokens=1000)))
            await asyncio.sleep(0.5)
            server.kill()
            with pytest.raises(EngineError) as died:
                await row
            assert died.value.kind in (ErrorKind.UNAVAILABLE, ErrorKind.INTERRUPTED)
            with pytest.raises(EngineError) as gone:
                await Dispatcher(engine).ask_once(chat(server, "Hello?", max_tokens=1))
            assert gone.value.kind is ErrorKind.UNAVAILABLE


@pytest.mark.parametrize(("scale", "method"), [("0..10", "generate"), ("0..10", "labels"), ("0..9", "labels")])
def test_a_table_is_scored(server, tmp_path, scale, method):
    rows = "".join(f"{number},{number} years in a mill\n" for number in range(10))
    (tmp_path / "table.csv").write_text(f"id,summary\n{rows}")
    (tmp_path / "rubric.txt").write_text("Score the miller by experience. 3 years: Score: 3. 7 years: Score: 7.")
    command = [sys.executable, "-m", "gristmill", "score", "table.csv", "--rubric", "rubric.txt", "--id", "id"]
    command += ["--scale", scale, "--method", method, "-o", "out.csv", "--engine", "openai_compatible"]
    command += ["--url", server.url, "--model", server.model, "-O", "api_key_env=TEST_ENGINE_KEY"]
    # What a small model thinks is off the scale is its own affair.
    done = subprocess.run([*command, "--most-off-scale", "0.9"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open(newline="") as file:
        scored = list(csv.DictReader(file))
    assert [row["id"] for row in scored] == [str(number) for number in range(10)]
    assert all(0 <= float(row["score"]) <= 10 for row in scored)
    if method == "labels":
        assert all(0 <= float(row["score_off_scale"]) <= 1 for row in scored)
