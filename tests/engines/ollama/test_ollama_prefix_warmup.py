"""A prefix is computed by itself, once on each slot, where a sliding window would lose it otherwise."""

from __future__ import annotations

import asyncio

import pytest
from ollama_replay import MODEL, recording
from ollama_requests import chat

from gristmill.engines.ollama.engine import OllamaEngine, OllamaOptions
from gristmill.engines.ollama.prefix_warmup import PrefixWarmup
from gristmill.engines.ollama.wire import ChatMessage

RUBRIC = ChatMessage("system", "Award one point for evidence. " * 100)
LONG = "shipped systems " * 200


def row(text: str) -> list[ChatMessage]:
    return [RUBRIC, ChatMessage("user", f"Candidate: {text} {LONG}")]


def test_the_second_long_row_of_a_group_asks_for_what_both_share():
    warmup = PrefixWarmup()
    assert warmup.due(row("Ana"), 8) is None
    assert warmup.due(row("Anton"), 8) == [RUBRIC, ChatMessage("user", "Candidate:")]
    assert warmup.due(row("Jia"), 8) is None


def test_rows_that_fit_into_one_step_need_nothing():
    warmup = PrefixWarmup()
    short = [RUBRIC, ChatMessage("user", "Candidate: Ana")]
    assert [warmup.due(short, 8) for _ in range(3)] == [None] * 3
    assert PrefixWarmup(rollback_tokens=4096).due(row("Ana"), 8) is None


def test_a_row_that_is_tried_again_is_no_group():
    warmup = PrefixWarmup()
    assert [warmup.due(row("Ana"), 8) for _ in range(3)] == [None] * 3
    assert warmup.due(row("Jia"), 8) == [RUBRIC, ChatMessage("user", "Candidate:")]


def test_a_reload_makes_every_prefix_cold_again():
    warmup = PrefixWarmup()
    due = [warmup.due(row(name), 8) is not None for name in ("Ana", "Anton", "Jia")]
    warmup.forget()
    due += [warmup.due(row(name), 8) is not None for name in ("Ana", "Anton")]
    assert due == [False, True, False, False, True]


def test_a_short_prefix_is_not_worth_a_request():
    warmup = PrefixWarmup()
    head = ChatMessage("system", "Score.")
    assert [warmup.due([head, ChatMessage("user", f"{i} {LONG}")], 8) for i in range(3)] == [None] * 3


@pytest.mark.asyncio
async def test_each_slot_of_a_sliding_window_model_is_warmed_once(server):
    window = recording("show").json["model_info"] | {"llama.attention.sliding_window": 512}
    server.answers["/api/show"] = recording("show").but(model_info=window)
    server.usual = recording("chat_first").but(prompt_eval_count=1400)
    engine = OllamaEngine(OllamaOptions(parallel=2), server.url, MODEL)
    await engine.start()
    messages = [[{"role": m.role, "content": m.content} for m in row(name)] for name in ("Ana", "Anton", "Jia")]
    await asyncio.gather(*(engine.complete(chat(messages=each)) for each in messages))
    await engine.stop()
    warm = [each.body for each in server.rows if each.body["options"]["num_predict"] == 1]
    assert len(warm) == 2 and len(server.rows) == 5
    assert warm[0]["messages"][-1]["content"] == "Candidate:"
    assert warm[0]["options"]["num_ctx"] == 4096


@pytest.mark.asyncio
async def test_a_model_without_a_window_is_never_warmed(server, engine):
    server.usual = recording("chat_first").but(prompt_eval_count=1400)
    for name in ("Ana", "Anton", "Jia"):
        await engine.complete(chat(messages=[{"role": m.role, "content": m.content} for m in row(name)]))
    assert len(server.rows) == 3
