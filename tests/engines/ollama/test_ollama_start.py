"""Starting: what is checked, what is chosen, and what a person is told."""

from __future__ import annotations

import asyncio

import pytest
from ollama_replay import MODEL, recording

from gristmill.engines.ollama.engine import OllamaEngine, OllamaOptions
from gristmill.engines.ollama.facts import ModelDetails, choose_num_ctx
from gristmill.engines.ollama.settings import DEFAULT_URL, base_url
from gristmill.engines.ollama.wire import RunningModel
from gristmill.user_error import UserError


async def started(server, model=MODEL, **options) -> OllamaEngine:
    engine = OllamaEngine(OllamaOptions(**options), server.url, model)
    await engine.start()
    return engine


async def told(server, model=MODEL, **options) -> str:
    engine = OllamaEngine(OllamaOptions(**options), server.url, model)
    with pytest.raises(UserError) as caught:
        await engine.start()
    return str(caught.value)


def details(**info) -> dict:
    return recording("show").json["model_info"] | info


def loaded(**changes) -> list[dict]:
    return [recording("ps_loaded").json["models"][0] | changes]


@pytest.mark.asyncio
async def test_a_started_engine_tells_what_it_can_do(server, engine):
    assert engine.models == (MODEL, f"{MODEL}:latest")
    assert (engine.capabilities.slots, engine.capabilities.context_length) == (1, 4096)
    assert [each.path for each in server.seen][-3:] == ["/api/chat", "/api/ps", "/api/chat"]


@pytest.mark.asyncio
async def test_the_model_is_loaded_with_the_options_of_every_row(server):
    from ollama_requests import chat, complete

    engine = await started(server, num_ctx=2048, num_batch=256, num_gpu=0, num_thread=2, parallel=4)
    await engine.complete(chat(temperature=1, seed=7, stop="x"))
    await engine.complete(complete())
    await engine.stop()
    runner = {"num_ctx": 2048, "num_batch": 256, "num_gpu": 0, "num_thread": 2}
    first, last = server.loads
    assert first["options"] == last["options"] == runner
    for row in server.rows:
        assert row.body["options"].items() >= runner.items()
    assert engine.capabilities.slots == 4


@pytest.mark.asyncio
@pytest.mark.parametrize("version", ["0.9.6", "0.12.10", "0.30.0"])
async def test_a_server_that_cannot_be_relied_on_is_refused_with_what_to_do(server, version):
    server.answers["/api/version"] = recording("version").but(version=version)
    text = await told(server)
    assert version in text and "pdate it" in text
    assert server.loads == []


@pytest.mark.asyncio
async def test_nobody_at_the_address_is_one_sentence_with_what_to_do(server):
    server.stop()
    text = await told(server)
    assert server.url in text and "ollama serve" in text and "OLLAMA_HOST=0.0.0.0" in text
    assert "does not answer: Connection refused." in text and "ssl" not in text


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["v1_batches", "v1_models"])
async def test_something_else_at_the_address_is_named(server, name):
    server.answers["/api/version"] = recording(name)
    assert "is not Ollama" in await told(server)


@pytest.mark.asyncio
async def test_a_password_in_the_address_is_never_shown(server):
    with_password = server.url.replace("://", "://me:secret@")
    server.stop()
    engine = OllamaEngine(OllamaOptions(), with_password, MODEL)
    with pytest.raises(UserError) as caught:
        await engine.start()
    assert server.url in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.asyncio
async def test_a_missing_model_name_lists_what_there_is(server):
    text = await told(server, model=None)
    assert "--model" in text and "gemma3-270m:latest, smollm2-135m:latest" in text


@pytest.mark.asyncio
async def test_an_unknown_model_says_how_to_get_it(server):
    assert "`ollama pull gemma3:12b`" in await told(server, model="gemma3:12b")


@pytest.mark.asyncio
async def test_a_server_without_models_says_how_to_get_one(server):
    server.answers["/api/tags"] = recording("tags").but(models=[])
    assert "`ollama pull gemma3`" in await told(server, model=None)


@pytest.mark.asyncio
async def test_a_model_that_makes_images_is_refused(server):
    server.answers["/api/show"] = recording("show").but(capabilities=["image"])
    assert "can neither generate text nor embed it (Ollama says it can: image)" in await told(server)


@pytest.mark.asyncio
async def test_a_model_that_cannot_be_loaded_is_explained_by_ollama(server):
    server.answers["/api/chat"] = recording("error_bad_format").with_status(500, "model requires more system memory")
    assert "model requires more system memory" in await told(server)


@pytest.mark.asyncio
async def test_a_context_beyond_the_models_is_refused(server):
    assert "at most 8192" in await told(server, num_ctx=16384)


@pytest.mark.asyncio
async def test_the_context_of_a_loaded_model_is_kept(server):
    server.running = loaded(context_length=6000)
    engine = await started(server)
    assert server.loads[0]["options"]["num_ctx"] == engine.capabilities.context_length == 6000
    await engine.stop()


@pytest.mark.asyncio
async def test_a_loaded_context_that_is_too_small_is_not_kept(server):
    server.running = loaded(context_length=2048)
    engine = await started(server)
    assert engine.capabilities.context_length == 4096
    await engine.stop()


@pytest.mark.asyncio
async def test_the_modelfiles_context_is_used(server):
    server.answers["/api/show"] = recording("show").but(parameters='num_ctx      8000\nstop    "<|im_end|>"')
    engine = await started(server)
    assert engine.capabilities.context_length == 8000
    await engine.stop()


@pytest.mark.asyncio
async def test_the_context_is_never_more_than_the_model_was_trained_for(server):
    server.answers["/api/show"] = recording("show").but(model_info=details(**{"llama.context_length": 2000}))
    engine = await started(server)
    assert engine.capabilities.context_length == 2000
    await engine.stop()


@pytest.mark.asyncio
async def test_a_thinking_model_is_asked_not_to_think_unless_wanted(server):
    from ollama_requests import chat

    server.answers["/api/show"] = recording("show").but(capabilities=["completion", "thinking"])
    for think in (False, True):
        engine = await started(server, think=think)
        await engine.complete(chat())
        await engine.stop()
    assert [row.body["think"] for row in server.rows] == [False, True]


@pytest.mark.asyncio
async def test_giving_up_while_starting_leaves_nothing_open(server):
    server.answers["/api/chat"] = recording("prewarm").but(total_duration=10**15)
    engine = OllamaEngine(OllamaOptions(), server.url, MODEL)
    starting = asyncio.create_task(engine.start())
    while not any(each.path == "/api/chat" for each in server.seen):
        await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await engine.stop()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (None, DEFAULT_URL),
        ("gpu-box", "http://gpu-box:11434"),
        ("gpu-box:8000", "http://gpu-box:8000"),
        ("http://gpu-box:11434/", "http://gpu-box:11434"),
        ("http://gpu-box:11434/v1/", "http://gpu-box:11434"),
        ("https://models.example/ollama/api", "https://models.example/ollama"),
        ("http://[::1]:11434", "http://[::1]:11434"),
    ],
)
def test_an_address_is_taken_the_way_people_write_it(given, url):
    assert base_url(given) == url


@pytest.mark.parametrize("given", ["ftp://gpu-box", "http://", "http://gpu-box:port", "http://gpu-box/?x=1"])
def test_what_is_no_address_is_refused(given):
    with pytest.raises(UserError, match="not the address"):
        base_url(given)


@pytest.mark.parametrize("options", [{"num_ctx": "-1"}, {"parallel": "0"}, {"num_predict": "x"}, {"shift": "1"}])
def test_options_are_checked(options):
    with pytest.raises(UserError):
        OllamaOptions.parse(options)


FACTS = ModelDetails(context_length=8192, sliding_window=None, num_ctx=None, stops=(), thinks=False)


@pytest.mark.parametrize(
    ("facts", "loaded", "row_tokens", "chosen"),
    [
        (FACTS, None, 0, 4096),
        (FACTS, None, 3000, 4096),
        (FACTS, None, 5000, 5120),
        (FACTS, None, 20_000, 8192),  # more than the model was trained for helps nobody
        (FACTS, 4096, 5000, 5120),  # what is loaded is too short
        (FACTS, 6000, 5000, 6000),  # what is loaded will do
        (FACTS._replace(num_ctx=2048), None, 0, 2048),
        (FACTS._replace(num_ctx=2048), None, 2500, 3072),
        (FACTS._replace(num_ctx=8000), None, 5000, 8000),
    ],
)
def test_the_context_holds_the_longest_row(facts, loaded, row_tokens, chosen):
    running = RunningModel("m", context_length=loaded) if loaded else None
    assert choose_num_ctx(0, facts, running, row_tokens) == chosen


def test_a_context_the_user_chose_is_left_alone():
    assert choose_num_ctx(2048, FACTS, None, row_tokens=5000) == 2048
