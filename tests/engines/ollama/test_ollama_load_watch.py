"""A model that Ollama does not load, because it holds another for ever: said while it is waited for, and given up."""

from __future__ import annotations

import asyncio

import pytest
from ollama_replay import MODEL, recording
from ollama_requests import chat

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.outage import Outage
from gristmill.dispatch.stop import Stop
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.ollama.engine import OllamaEngine, OllamaOptions
from gristmill.engines.ollama.load_watch import LoadWatch, waiting_for
from gristmill.engines.ollama.wire import RunningModel
from gristmill.engines.protocol import TellsWhatItWaitsFor
from gristmill.user_error import UserError

FOREVER = "2319-03-05T05:46:15.23489605Z"


def other() -> dict:
    return recording("ps_loaded").json["models"][0] | {"name": "llama3:70b", "model": "llama3:70b"}


async def until_waiting(engine: OllamaEngine) -> str:
    async with asyncio.timeout(20):
        while engine.waiting_for is None:
            await asyncio.sleep(0.01)
    return engine.waiting_for


async def test_a_start_says_what_it_waits_for_and_gives_up_after_its_time(server):
    server.holding_loads, server.running = True, [other()]
    engine = OllamaEngine(OllamaOptions(load_timeout=4.0), server.url, MODEL)
    assert isinstance(engine, TellsWhatItWaitsFor)
    start = asyncio.create_task(engine.start())
    said = await until_waiting(engine)
    assert MODEL in said and "llama3:70b for ever" in said and "seconds" in said
    with pytest.raises(UserError, match="has not loaded .* within 4 seconds.*llama3:70b for ever.*load_timeout"):
        await start


async def test_rows_of_a_model_that_is_not_loaded_wait_and_pay_nothing(server, engine, monkeypatch):
    engine._running = engine._running._replace(loading=LoadWatch(engine._running.client, MODEL, 0.05, 0.05))
    engine._loading = engine._running.loading
    server.holding, server.running = True, [other()]
    dispatcher = Dispatcher(engine, timeout=0.5)
    dispatcher.outage = Outage(first_delay=0.05, max_delay=0.1)
    row = asyncio.create_task(dispatcher.ask(chat(), Stop()))
    assert "llama3:70b" in await until_waiting(engine)
    for _ in range(8):
        with pytest.raises(EngineError) as caught:
            await dispatcher.ask_once(chat())
        assert caught.value.kind is ErrorKind.UNAVAILABLE and "llama3:70b" in caught.value.message
    assert "llama3:70b" in (dispatcher.waiting_for or "")
    server.holding = False
    async with asyncio.timeout(20):
        assert (await row).choices
    assert dispatcher.waiting_for is None


def test_a_loaded_model_is_not_waited_for():
    running = [RunningModel("m:latest", FOREVER), RunningModel("x", "2026-11-23T06:04:18Z")]
    assert waiting_for("m", running, 5) is None
    assert waiting_for("y", running, 5.4) == (
        "Ollama to load y, for 5 seconds now; it holds m:latest for ever, x for now "
        "(`ollama stop NAME` lets a model go)"
    )
    assert waiting_for("y", [], 5.4) == "Ollama to load y, for 5 seconds now"
