"""The model stays loaded while the engine runs, and afterwards as long as it would have."""

from __future__ import annotations

import pytest
from ollama_replay import MODEL, recording
from ollama_requests import chat

from gristmill.engines.ollama.engine import OllamaEngine, OllamaOptions
from gristmill.engines.ollama.residency import keep_alive_before
from gristmill.engines.ollama.wire import FOREVER, RunningModel

FOUND = recording("ps_loaded").json["models"][0]


async def run_one_row(server, **options) -> None:
    engine = OllamaEngine(OllamaOptions(**options), server.url, MODEL)
    await engine.start()
    await engine.complete(chat())
    await engine.stop()


@pytest.mark.asyncio
async def test_a_model_that_was_not_loaded_goes_back_to_ollamas_default(server):
    server.answers["/api/ps"] = recording("ps_empty")
    engine = OllamaEngine(OllamaOptions(), server.url, MODEL)
    await engine.start()
    del server.answers["/api/ps"]
    await engine.stop()
    # The model is loaded with options this engine did not see loaded: it is left alone.
    assert len(server.loads) == 1


@pytest.mark.asyncio
async def test_the_model_is_kept_while_rows_run_and_let_go_afterwards(server):
    await run_one_row(server)
    assert server.rows[0].body["keep_alive"] == FOREVER
    assert [load["keep_alive"] for load in server.loads] == [FOREVER, 300]
    assert server.loads[0].keys() == recording("prewarm").sent.keys()


@pytest.mark.asyncio
async def test_a_model_that_was_to_stay_for_ever_stays(server):
    server.running = [FOUND]
    await run_one_row(server)
    assert [load["keep_alive"] for load in server.loads] == [FOREVER]


@pytest.mark.asyncio
async def test_a_model_unloaded_meanwhile_is_not_loaded_again_to_let_it_go(server):
    engine = OllamaEngine(OllamaOptions(), server.url, MODEL)
    await engine.start()
    server.running = []
    await engine.stop()
    assert len(server.loads) == 1


@pytest.mark.asyncio
async def test_a_model_reloaded_by_another_client_is_theirs(server):
    engine = OllamaEngine(OllamaOptions(), server.url, MODEL)
    await engine.start()
    server.running = [FOUND | {"context_length": 2048}]
    await engine.stop()
    assert len(server.loads) == 1


@pytest.mark.asyncio
async def test_stopping_is_silent_when_ollama_has_gone(server):
    engine = OllamaEngine(OllamaOptions(), server.url, MODEL)
    await engine.start()
    server.stop()
    await engine.stop()
    await engine.stop()


@pytest.mark.parametrize(
    ("expires_at", "keep_alive"),
    [
        ("2319-03-05T05:46:15.23489605Z", FOREVER),
        ("2026-11-23T06:00:00.123456789Z", 300),
        ("2026-11-23T08:00:00+01:00", 3600),
        ("", 300),
    ],
)
def test_what_is_left_behind_is_never_less_than_what_was_found(expires_at, keep_alive):
    now = 1795413600.0  # 2026-11-23 06:00 UTC
    assert keep_alive_before(RunningModel("m", expires_at), now) == keep_alive
    assert keep_alive_before(None, now) == 300
