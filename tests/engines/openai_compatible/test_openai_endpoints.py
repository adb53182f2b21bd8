"""Which endpoints a server is found to have, from what real servers answer; and what comes of asking for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from openai_stand_in import Play, StandIn, play, recording

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.stop import Stop
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.openai_compatible.engine import OpenAICompatibleEngine, OpenAICompatibleOptions
from gristmill.engines.openai_compatible.served_paths import PATHS, is_served, question
from gristmill.engines.protocol import ForwardedAnswer, ForwardRequest
from gristmill.inference.failures import api_error
from gristmill.user_error import UserError
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS, RERANK, RESPONSES

#: What real servers say, and whether the path can be asked.
SAID = {
    "llama.cpp, asked for nothing": (400, recording("nothing-asked").body, True),
    "llama.cpp without the path": (404, recording("no_path").body, False),
    "llama.cpp without --embeddings": (501, recording("embeddings-off").body, False),
    "llama.cpp with --embeddings": (200, recording("embeddings").body, True),
    "llama.cpp without --reranking": (501, recording("rerank-off").body, False),
    # FastAPI, in vLLM, for a path that its model's task does not mount.
    "vLLM without the path": (404, b'{"detail":"Not Found"}', False),
    # vllm/entrypoints/pooling/embed/api_router.py, when all paths were mounted.
    "vLLM with a model for text": (400, b'{"error":{"message":"The model does not support Embeddings API",'
                                        b'"type":"BadRequestError","param":null,"code":400}}', False),
    # sglang/srt/managers/tokenizer_manager.py
    "SGLang with a model for text": (400, b'{"object":"error","message":"This model does not appear to be an embedding '
                                          b'model by default. Please add `--is-embedding` when launching the server or '
                                          b'try another model.","type":"BadRequestError","param":null,"code":400}',
                                     False),
    "LM Studio without the path": (200, b'{"error":"Unexpected endpoint or method. (POST /v1/rerank)"}', False),
    "a page for people": (200, b"<html>It works!</html>", False),
    "a key that may not": (403, b"{}", False),
    "a server that fails at the question": (500, b'{"error":{"code":500,"message":"oh"}}', True),
}  # fmt: skip


@pytest.mark.parametrize("what", SAID)
def test_a_path_is_there_or_not_by_what_a_server_says(what):
    status, body, there = SAID[what]
    assert is_served(status, body) is there


def test_every_question_names_the_model():
    assert all(json.loads(question(path, "m"))["model"] == "m" for path in PATHS)


async def endpoints_of(server: StandIn) -> frozenset[str]:
    engine = OpenAICompatibleEngine(OpenAICompatibleOptions(), server.url)
    await engine.start()
    await engine.stop()
    return engine.capabilities.endpoints


async def test_a_server_is_asked_for_what_it_has():
    with StandIn() as server:
        server.paths = (CHAT, COMPLETIONS, RESPONSES)
        assert await endpoints_of(server) == {CHAT, COMPLETIONS, RESPONSES}


async def test_a_server_for_embeddings_alone_can_be_used():
    with StandIn() as server:
        server.paths = (EMBEDDINGS,)
        assert await endpoints_of(server) == {EMBEDDINGS}


async def test_a_server_without_any_of_them_is_refused():
    with StandIn() as server:
        server.paths = ()
        with pytest.raises(UserError, match="/v1/chat/completions"):
            await endpoints_of(server)


async def test_another_gristmill_says_it_of_its_models():
    with StandIn() as server:
        models = json.loads(recording("models").body)
        models["data"][0]["gristmill"] = {"endpoints": [CHAT, "/v1/messages"]}
        server.models = play(recording("models"))._replace(body=json.dumps(models).encode())
        assert await endpoints_of(server) == {CHAT, "/v1/messages"}


@asynccontextmanager
async def started(server: StandIn) -> AsyncIterator[Dispatcher]:
    engine = OpenAICompatibleEngine(OpenAICompatibleOptions(), server.url)
    await engine.start()
    try:
        yield Dispatcher(engine)
    finally:
        await engine.stop()


def asking(path: str, **fields: object) -> ForwardRequest:
    return ForwardRequest(path, "smollm2", json.dumps({"model": "smollm2", **fields}).encode())


async def test_vectors_come_back_as_they_came_and_their_tokens_are_counted():
    body = recording("embeddings").body
    with StandIn(lambda _: Play(200, body)) as server:
        server.paths = (EMBEDDINGS,)
        async with started(server) as dispatcher:
            found = await dispatcher.ask(asking(EMBEDDINGS, input="a mill"), Stop())
        assert found == ForwardedAnswer(body, prompt_tokens=1)
        assert json.loads(server.bodies[-1]) == {"model": "smollm2", "input": "a mill"}


#: The second is what llama.cpp's JSON library writes for what is no number.
BROKEN = [b'{"data":[]}', b'{"data":[{"embedding":[0.5,null]}]}', b'{"data":[{"index":0}]}', b'{"data":null}',
          b'{"data":[{"embedding":[NaN]}]}', b'{"data":[{"embedding":[]}]}', b"{}"]  # fmt: skip


@pytest.mark.parametrize("body", BROKEN)
async def test_what_holds_no_vectors_is_no_answer(body):
    with StandIn(lambda _: Play(200, body)) as server:
        server.paths = (EMBEDDINGS,)
        async with started(server) as dispatcher:
            with pytest.raises(EngineError) as found:
                await dispatcher.ask_once(asking(EMBEDDINGS, input="a mill"))
        assert found.value.kind is ErrorKind.INTERRUPTED


async def test_what_the_server_lacks_is_refused_without_asking_it():
    with StandIn() as server:
        async with started(server) as dispatcher:
            sent = len(server.bodies)
            with pytest.raises(EngineError, match="cannot answer /v1/rerank") as found:
                await dispatcher.ask(asking(RERANK, query="a", documents=["b"]), Stop())
            assert (found.value.status, found.value.code) == (404, "unsupported_endpoint")
            assert len(server.bodies) == sent


async def test_a_path_that_is_gone_from_a_server_that_answers_is_the_rows_own_error():
    with StandIn() as server:
        async with started(server) as dispatcher:
            server.paths = (COMPLETIONS,)
            with pytest.raises(EngineError, match="has no /v1/chat/completions: File Not Found") as found:
                await asyncio.wait_for(dispatcher.ask(asking(CHAT, messages=[]), Stop()), 20)
        assert (found.value.kind, found.value.status) == (ErrorKind.INVALID_REQUEST, 404)
        assert dispatcher.outage.reason is None


async def test_a_server_behind_a_proxy_that_knows_nothing_of_it_is_away():
    with StandIn() as server:
        async with started(server) as dispatcher:
            server.paths = ()
            server.models = Play(404, b"404 page not found")
            with pytest.raises(EngineError) as found:
                await dispatcher.ask_once(asking(CHAT, messages=[]))
        assert found.value.kind is ErrorKind.UNAVAILABLE


async def test_the_type_and_the_code_of_a_servers_error_are_kept():
    said = {"message": "top_k must be -1 or more", "type": "BadRequestError", "param": "top_k", "code": 400}
    with StandIn(lambda _: Play(400, json.dumps({"error": said}).encode())) as server:
        async with started(server) as dispatcher:
            with pytest.raises(EngineError) as found:
                await dispatcher.ask_once(asking(CHAT, messages=[]))
    assert msgspec.to_builtins(api_error(found.value).body) == said


async def test_an_input_that_llama_cpp_cannot_take_whole_is_never_tried_again():
    too_long = recording("embeddings-too-long")
    with StandIn(lambda _: play(too_long)) as server:
        server.paths = (EMBEDDINGS,)
        async with started(server) as dispatcher:
            with pytest.raises(EngineError) as found:
                await dispatcher.ask(asking(EMBEDDINGS, input="long"), Stop())
        assert (found.value.code, found.value.param, server.asked) == ("context_length_exceeded", "input", 1)


async def test_an_endpoint_that_a_pool_has_for_another_model_is_the_rows_own_error():
    with StandIn() as chats, StandIn() as embeds:
        embeds.paths = (EMBEDDINGS,)
        embeds.models = embeds.models._replace(body=embeds.models.body.replace(b"smollm2", b"nomic"))
        engine = OpenAICompatibleEngine(OpenAICompatibleOptions(), f"{chats.url},{embeds.url}")
        await engine.start()
        assert engine.capabilities.endpoints == {CHAT, COMPLETIONS, EMBEDDINGS}
        dispatcher = Dispatcher(engine)
        with pytest.raises(EngineError, match="cannot answer /v1/embeddings .* It answers: /v1/chat") as found:
            await asyncio.wait_for(dispatcher.ask(asking(EMBEDDINGS, input="a"), Stop()), 20)
        assert found.value.kind is ErrorKind.INVALID_REQUEST
        await engine.stop()
