"""Which endpoints a server is found to have, from what real servers answer."""

from __future__ import annotations

import json

import pytest
from openai_stand_in import StandIn, play, recording

from gristmill.engines.openai_compatible.engine import OpenAICompatibleEngine, OpenAICompatibleOptions
from gristmill.engines.openai_compatible.served_paths import PATHS, is_served, question
from gristmill.user_error import UserError
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

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
