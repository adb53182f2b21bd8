"""What each strategy sends."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gristmill.bench.rows import marked
from gristmill.bench.session import StrategyTurn
from gristmill.bench.strategies import (
    BASELINE,
    CONTEXT,
    CONVERSATION,
    KEEP_ALIVE,
    KEPT_MESSAGES,
    LABELS,
    PREFIX,
    expected_value,
)
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.errors import ErrorKind
from gristmill.engines.protocol import LabelScores
from gristmill.engines.simulated import SimulatedEngine, SimulatedOptions
from gristmill.wire.chat import ChatCompletionRequest

RUBRIC = "Score each candidate from 0 to 10. " * 20


class Watched(SimulatedEngine):
    """The simulated engine, with what it was sent and how much at once."""

    def __init__(self, **options) -> None:
        super().__init__(SimulatedOptions(**options))
        self.sent: list[ChatCompletionRequest] = []
        self.at_once = self.most_at_once = 0

    async def complete(self, request, on_delta=None, *, interactive=False):
        self.sent.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await super().complete(request, on_delta)
        finally:
            self.at_once -= 1


def rows(count: int) -> list[ChatCompletionRequest]:
    return [
        msgspec.convert(
            {
                "model": "simulated",
                "messages": [
                    {"role": "system", "content": RUBRIC},
                    {"role": "user", "content": f"Candidate {number}"},
                ],
            },
            ChatCompletionRequest,
        )
        for number in range(count)
    ]


async def run(strategy, engine: Watched, count: int, labels: list[str] | None = None) -> StrategyTurn:
    turn = StrategyTurn(Dispatcher(engine), labels or [])
    await strategy.run(turn, rows(count))
    assert sorted(outcome.row for outcome in turn.results) == list(range(count))
    return turn


def texts(request: ChatCompletionRequest) -> list[str]:
    return [f"{message.role}: {message.text()}" for message in request.messages]


async def test_the_baseline_shares_nothing_between_rows():
    engine = Watched()
    turn = await run(BASELINE, engine, 6)
    assert engine.most_at_once == 1
    assert len({request.messages[0].text().split("\n")[0] for request in engine.sent}) == 6
    # "system: Row 1." is all that two prompts have in common.
    assert max(outcome.cached_tokens for outcome in turn.results) <= 3


async def test_keep_alive_sends_rows_as_written_one_at_a_time():
    engine = Watched(latency=0.001)
    turn = await run(KEEP_ALIVE, engine, 6)
    assert engine.most_at_once == 1
    assert engine.sent == rows(6)
    assert min(outcome.cached_tokens for outcome in turn.results[1:]) > len(RUBRIC) / 4 * 0.9


async def test_prefix_sends_rows_as_written_and_many_at_once():
    engine = Watched(latency=0.01, slots=4)
    turn = await run(PREFIX, engine, 12)
    assert engine.most_at_once == 4
    assert engine.sent[0] == rows(1)[0]
    assert sorted(map(texts, engine.sent)) == sorted(map(texts, rows(12)))
    alone = await run(KEEP_ALIVE, Watched(), 12)
    assert {o.row: o.text for o in turn.results} == {o.row: o.text for o in alone.results}


async def test_a_conversation_brings_earlier_rows_and_their_answers():
    engine = Watched()
    turn = await run(CONVERSATION, engine, 3)
    answers = [outcome.text for outcome in turn.results]
    assert texts(engine.sent[2]) == [
        f"system: {RUBRIC}",
        "user: Candidate 0", f"assistant: {answers[0]}",
        "user: Candidate 1", f"assistant: {answers[1]}",
        "user: Candidate 2",
    ]  # fmt: skip


async def test_a_conversation_keeps_the_system_message_and_the_last_hundred():
    engine = Watched()
    await run(CONVERSATION, engine, 70)
    last = engine.sent[-1].messages
    assert len(last) == 1 + KEPT_MESSAGES + 1
    assert (last[0].role, last[1].text(), last[-1].text()) == ("system", "Candidate 19", "Candidate 69")


async def test_a_conversation_too_long_for_the_context_goes_on_with_less_of_it():
    turn = await run(CONVERSATION, Watched(context_length=len(RUBRIC) // 4 + 120), 30)
    assert [outcome.error for outcome in turn.results] == [""] * 30


async def test_a_failed_row_is_counted_and_ends_nothing():
    turn = await run(PREFIX, Watched(fail_on="Candidate 3", failure_kind=ErrorKind.INVALID_REQUEST), 6)
    failed = [outcome for outcome in turn.results if outcome.error]
    assert [outcome.row for outcome in failed] == [3]
    conversation = await run(CONVERSATION, Watched(fail_on="Candidate 3", failure_kind=ErrorKind.INVALID_REQUEST), 6)
    assert [outcome.row for outcome in conversation.results if outcome.error] == [3]


async def test_labels_are_scored_where_the_engine_can():
    turn = await run(LABELS, Watched(), 5, labels=["0", "5", "10"])
    assert {outcome.text for outcome in turn.results} <= {"0", "5", "10"}
    assert all(0 < outcome.score < 10 for outcome in turn.results)
    assert not any(outcome.output_tokens for outcome in turn.results)


def test_what_an_engine_cannot_do_is_said():
    engine = Watched()
    assert "--labels" in LABELS.missing(engine, [])
    assert LABELS.missing(engine, ["1"]) == ""
    assert "only Ollama" in CONTEXT.missing(engine, [])


def test_the_expected_value_weighs_labels_among_one_another():
    assert expected_value(["0", "10"], LabelScores("m", (-3.0, -3.0), 1)) == pytest.approx(5.0)
    assert expected_value(["1", "2"], LabelScores("m", (-1000.0, -0.1), 1)) == pytest.approx(2.0)
    assert expected_value(["good", "bad"], LabelScores("m", (-1.0, -1.0), 1)) is None


def test_a_mark_stands_at_the_very_beginning_and_changes_nothing_else():
    request = rows(1)[0]
    first = marked(request, "Round 1.").messages[0]
    assert first.text() == "Round 1.\n" + RUBRIC
    assert marked(request, "Round 1.").messages[1:] == request.messages[1:]
    parts = msgspec.convert(
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        ChatCompletionRequest,
    )
    assert marked(parts, "A.").messages[0].text() == "A.\nHi"


async def test_cancelling_a_turn_leaves_no_request_behind():
    engine = Watched(latency=5)
    task = asyncio.ensure_future(run(PREFIX, engine, 8))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.at_once == 0
