"""What `gristmill bench` asks of Ollama besides rows: dropping the model, and the deprecated context."""

from __future__ import annotations

import msgspec
import pytest_asyncio
from ollama_replay import MODEL, recording
from ollama_requests import chat

from gristmill.bench.session import KeepsContext, StrategyTurn, Unloads
from gristmill.bench.strategies import BASELINE, CONTEXT
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.ollama.measured import MeasuredOllamaEngine
from gristmill.engines.ollama.settings import OllamaOptions
from gristmill.engines.protocol import CountsLoads


@pytest_asyncio.fixture
async def engine(server):
    engine = MeasuredOllamaEngine(OllamaOptions(), server.url, MODEL)
    await engine.start()
    yield engine
    await engine.stop()


async def test_the_engine_offers_what_the_strategies_look_for(engine):
    assert isinstance(engine, CountsLoads)
    assert isinstance(engine, Unloads)
    assert isinstance(engine, KeepsContext)


async def test_the_baseline_has_the_model_dropped_before_every_row(server, engine):
    server.seen.clear()
    await BASELINE.run(StrategyTurn(Dispatcher(engine), []), [chat("one"), chat("two")])
    sent = [(bool(each.body["messages"]), each.body["keep_alive"]) for each in server.seen if each.path == "/api/chat"]
    assert sent == [(False, 0), (True, -1), (False, 0), (True, -1)]


async def test_rows_after_the_first_come_behind_its_context(server, engine):
    turn = StrategyTurn(Dispatcher(engine), [])
    await CONTEXT.run(turn, [chat("Candidate 1"), chat("Candidate 2"), chat("Candidate 3")])
    first, *others = (each.body for each in server.rows)
    assert (first["system"], first["prompt"]) == ("You are a recruiter.", "Candidate 1")
    assert "context" not in first
    given = recording("generate_context").json["context"]
    for number, body in enumerate(others, 2):
        assert (body["prompt"], body["context"]) == (f"Candidate {number}", given)
        assert "system" not in body
        assert (body["keep_alive"], body["truncate"], body["stream"]) == (-1, False, False)
    assert [outcome.text for outcome in turn.results] == [recording("generate_context").json["response"]] * 3
    assert turn.results[0].prompt_tokens == 216


async def test_a_context_answer_cut_in_the_middle_is_a_failed_row(server, engine):
    server.play(recording("generate_context").but(done=False))
    turn = StrategyTurn(Dispatcher(engine), [])
    await CONTEXT.run(turn, [chat("Candidate 1")])
    assert "middle" in turn.results[0].error


async def test_options_are_those_of_every_other_row(server, engine):
    await engine.complete(chat("one"))
    await engine.complete_in_context(msgspec.structs.replace(chat("two")), [])
    usual, with_context = (each.body["options"] for each in server.rows)
    assert with_context == usual
