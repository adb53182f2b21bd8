"""Embeddings on Ollama. Its answers are made here as its ``server/routes.go`` (EmbedHandler, 0.33) makes them: what is
recorded is only the refusal of a model that does not embed."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from ollama_replay import MODEL, Recording, ReplayServer, recording

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.ollama.engine import OllamaEngine, OllamaOptions
from gristmill.engines.ollama.wire import FOREVER
from gristmill.engines.protocol import EmbeddingRequest
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS
from requests_jsonl import jsonl
from server_process import ServerProcess

SIZE = 4


def float32(number: float) -> float:
    """In the fewest digits, as Go writes it."""
    packed = struct.pack("f", number)
    return next(short for digits in range(1, 10) if struct.pack("f", short := float(f"{number:.{digits}g}")) == packed)


def vector(text: str, size: int | None) -> list[float]:
    numbers = [len(text) + 1.0, text.count("e") - 0.3, text.count("a") * 0.7, 1 / 3][:size]
    length = math.hypot(*numbers)
    return [float32(number / length) for number in numbers]


class EmbeddingReplay(ReplayServer):
    """With a model that embeds. A word is a token."""

    def __init__(self) -> None:
        super().__init__()
        self.answers["/api/show"] = recording("show").but(capabilities=["embedding"])
        self.embedded: list[Any] = []

    def embed(self, body: Any) -> Recording:
        answer = recording("embed")._replace(status=200)
        if not body["input"]:
            return answer._replace(body=json.dumps({"model": body["model"], "embeddings": []}).encode())
        self.embedded.append(body)
        counts = [len(text.split()) for text in body["input"]]
        if max(counts) > body["options"]["num_ctx"]:
            return answer._replace(status=400, body=b'{"error":"the input length exceeds the context length"}')
        if "overflow" in body["input"][0]:
            return answer._replace(status=400, body=b'{"error":"embedding contains NaN or Inf values"}')
        vectors = [vector(text, body.get("dimensions")) for text in body["input"]]
        found = {"model": body["model"], "embeddings": vectors, "total_duration": 14143917, "load_duration": 1019500}
        return answer._replace(body=json.dumps(found | {"prompt_eval_count": sum(counts)}).encode())


@pytest.fixture
def server() -> Iterator[EmbeddingReplay]:
    with EmbeddingReplay() as running:
        yield running
    assert running.wrong == []


@pytest_asyncio.fixture
async def engine(server: EmbeddingReplay) -> AsyncIterator[OllamaEngine]:
    engine = OllamaEngine(OllamaOptions(num_ctx=8), server.url, MODEL)
    await engine.start()
    yield engine
    await engine.stop()


async def refused(engine: OllamaEngine, inputs: Any, dimensions: int | None = None) -> EngineError:
    with pytest.raises(EngineError) as found:
        await engine.embed(EmbeddingRequest(MODEL, inputs, dimensions))
    assert found.value.kind is ErrorKind.INVALID_REQUEST
    return found.value


@pytest.mark.asyncio
async def test_all_inputs_of_a_request_go_together_and_none_may_be_cut(server, engine):
    found = await engine.embed(EmbeddingRequest(MODEL, ["a mill", "a stone wheel"]))
    assert found.vectors == [vector("a mill", None), vector("a stone wheel", None)] and found.prompt_tokens == 5
    (sent,) = server.embedded
    assert sent["input"] == ["a mill", "a stone wheel"] and sent["truncate"] is False
    assert sent["keep_alive"] == FOREVER and sent["options"] == {"num_ctx": 8} and "dimensions" not in sent


@pytest.mark.asyncio
async def test_only_what_the_model_does_is_offered(server, engine):
    assert engine.capabilities.endpoints == {EMBEDDINGS}
    # Loaded and let go through the same call: a model that embeds is no chat model to Ollama.
    await engine.stop()
    calls = [(each.path, each.body["keep_alive"]) for each in server.seen if each.path in ("/api/chat", "/api/embed")]
    assert calls == [("/api/embed", FOREVER), ("/api/embed", 300)]


@pytest.mark.asyncio
@pytest.mark.parametrize("capabilities", [["completion"], ["completion", "tools"], None])
async def test_a_model_for_text_is_not_asked_to_embed(server, capabilities):
    server.answers["/api/show"] = recording("show").but(capabilities=capabilities)
    engine = OllamaEngine(OllamaOptions(), server.url, MODEL)
    await engine.start()
    assert engine.capabilities.endpoints == {CHAT, COMPLETIONS}
    with pytest.raises(EngineError, match="cannot answer /v1/embeddings with the models it has here") as found:
        await Dispatcher(engine).ask_once(EmbeddingRequest(MODEL, ["a"]))
    assert found.value.status == 404 and found.value.code == "unsupported_endpoint"
    await engine.stop()


@pytest.mark.asyncio
async def test_an_input_that_is_too_long_is_the_contracts_context_error(engine):
    error = await refused(engine, ["short", "far " * 9])
    assert error.code == "context_length_exceeded" and error.param == "input" and "8 tokens" in error.message


@pytest.mark.asyncio
async def test_fewer_dimensions_are_ollamas_and_more_than_there_are_an_error(engine):
    assert len((await engine.embed(EmbeddingRequest(MODEL, ["a"], 2))).vectors[0]) == 2
    error = await refused(engine, ["a"], SIZE + 1)
    assert error.param == "dimensions" and f"have {SIZE} numbers" in error.message


@pytest.mark.asyncio
async def test_what_ollama_cannot_embed_is_refused_by_name(engine):
    assert (await refused(engine, [[1, 2]])).param == "input (token ids)"
    assert "NaN" in (await refused(engine, ["overflow"])).message


@pytest.mark.asyncio
async def test_a_request_that_is_given_up_frees_the_server(server, engine):
    server.holding = True
    asked = asyncio.create_task(engine.embed(EmbeddingRequest(MODEL, ["a"])))
    assert await asyncio.to_thread(server.held.wait, 10)
    asked.cancel()
    assert await asyncio.to_thread(server.gone.wait, 10)


def test_the_official_client_embeds_through_a_server_and_in_a_batch(server: EmbeddingReplay, tmp_path: Path) -> None:
    options = ("--engine", "ollama", "--url", server.url, "--model", MODEL)
    with ServerProcess(tmp_path / "data", *options) as running:
        client = running.client(max_retries=0)
        assert next(iter(client.models.list())).gristmill == {"endpoints": [EMBEDDINGS]}  # type: ignore[attr-defined]
        packed = client.embeddings.create(model=MODEL, input=["a mill", "a stone wheel"])
        plain = client.embeddings.create(model=MODEL, input="a mill", encoding_format="float")
        assert plain.data[0].embedding == vector("a mill", None)
        assert packed.data[0].embedding == pytest.approx(vector("a mill", None), abs=1e-7)
        with pytest.raises(openai.NotFoundError, match="cannot answer /v1/chat/completions"):
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
        lines = [
            {"custom_id": form, "method": "POST", "url": EMBEDDINGS,
             "body": {"model": MODEL, "input": "the wheel", "encoding_format": form}}
            for form in ("float", "base64")
        ]  # fmt: skip
        file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
        with pytest.raises(openai.BadRequestError, match="Supported values are: '/v1/embeddings'"):
            client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        batch = client.batches.create(input_file_id=file.id, endpoint=EMBEDDINGS, completion_window="24h")
        while batch.status != "completed":
            batch = client.batches.retrieve(batch.id)
        rows = [json.loads(line) for line in client.files.content(str(batch.output_file_id)).text.splitlines()]
    number, text = (row["response"]["body"]["data"][0]["embedding"] for row in rows)
    assert number == vector("the wheel", None)
    assert base64.b64decode(text) == struct.pack(f"<{SIZE}f", *number)
    # Written with the digits of float32, as Ollama writes it.
    assert json.dumps(number) in json.dumps(rows[0])
