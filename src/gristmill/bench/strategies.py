"""The ways to send rows that share a prompt: what people do, and what Gristmill does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from gristmill.bench.rows import marked, with_messages
from gristmill.bench.session import KeepsContext, StrategyTurn, Unloads
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import Engine, LabelRequest, LabelScorer, LabelScores
from gristmill.wire.chat import ChatCompletionRequest, Message

Rows = list[ChatCompletionRequest]

#: Messages a conversation keeps besides the system message, as it was once proposed.
KEPT_MESSAGES = 100
#: Enough for any label's tokens and the end of the answer.
_LABEL_TOKENS = 8


async def run_baseline(turn: StrategyTurn, rows: Rows) -> None:
    for row, request in enumerate(rows):
        if isinstance(turn.engine, Unloads):
            try:
                await turn.engine.unload()
            except EngineError as error:
                turn.failed(row, error)
                continue
        await turn.complete(row, marked(request, f"Row {row}."))


async def run_alone(turn: StrategyTurn, rows: Rows) -> None:
    for row, request in enumerate(rows):
        await turn.complete(row, request)


async def run_in_context(turn: StrategyTurn, rows: Rows) -> None:
    assert isinstance(turn.engine, KeepsContext)
    context: list[int] = []
    for row, request in enumerate(rows):
        asked = with_messages(request, request.messages[-1:]) if context else request
        try:
            completion, after = await turn.engine.complete_in_context(asked, context)
        except EngineError as error:
            turn.failed(row, error)
            continue
        turn.answered(row, completion)
        context = context or after


async def run_conversation(turn: StrategyTurn, rows: Rows) -> None:
    history: list[Message] = []
    for row, request in enumerate(rows):
        *shared, own = request.messages
        while True:
            completion = await turn.complete(row, with_messages(request, [*shared, *history, own]))
            if completion is not None or not history or turn.results[-1].error_code != "context_length_exceeded":
                break
            # What the row failed of is the chat's length: the older half of it goes, and the row is asked again.
            turn.results.pop()
            history = history[len(history) // 4 * 2 + 2 :]
        if completion is not None:
            answer = Message("assistant", completion.choices[0].text)
            history = [*history, own, answer][-KEPT_MESSAGES:]


async def run_together(turn: StrategyTurn, rows: Rows) -> None:
    # The first row alone, so that what the prefix costs is known apart; and no other row computes it too.
    await turn.complete(0, rows[0])
    await asyncio.gather(*(turn.complete(row, request) for row, request in enumerate(rows[1:], 1)))


async def run_labels(turn: StrategyTurn, rows: Rows) -> None:
    ask = _score if isinstance(turn.engine, LabelScorer) else _choose
    await ask(turn, 0, rows[0])
    await asyncio.gather(*(ask(turn, row, request) for row, request in enumerate(rows[1:], 1)))


async def _score(turn: StrategyTurn, row: int, request: ChatCompletionRequest) -> None:
    scores = await turn.score(row, LabelRequest(request.model, request.messages, turn.labels))
    if scores is not None:
        best = max(range(len(turn.labels)), key=scores.logprobs.__getitem__)
        turn.scored(row, turn.labels[best], expected_value(turn.labels, scores), scores)


async def _choose(turn: StrategyTurn, row: int, request: ChatCompletionRequest) -> None:
    limited = msgspec.structs.replace(
        request, structured_outputs={"choice": turn.labels}, response_format=None,
        max_completion_tokens=_LABEL_TOKENS, max_tokens=None,
    )  # fmt: skip
    await turn.complete(row, limited)


def _can_always(engine: Engine, labels: list[str]) -> str:
    return ""


def _needs_context(engine: Engine, labels: list[str]) -> str:
    return "" if isinstance(engine, KeepsContext) else "only Ollama has the context parameter"


def _needs_labels(engine: Engine, labels: list[str]) -> str:
    if not labels:
        return "say which answers there are, with --labels"
    if isinstance(engine, LabelScorer) or "structured_outputs" in engine.capabilities.parameters:
        return ""
    return f"the {engine.name} engine can neither score labels nor limit an answer to them"


class Strategy(NamedTuple):
    """``run`` asks for every row once, noting what came of it. ``missing``: why it cannot be used with an engine and
    labels; empty if it can. ``independent``: rows are asked alone, so that there is nothing to drift from.
    ``at_once``: many rows are in flight. ``full_after``: how many rows it takes until rows cost what later ones do."""

    name: str
    about: str
    run: Callable[[StrategyTurn, Rows], Awaitable[None]]
    missing: Callable[[Engine, list[str]], str] = _can_always
    independent: bool = False
    at_once: bool = False
    full_after: int = 1


BASELINE = Strategy(
    "baseline",
    "one row at a time, nothing kept: every prompt begins differently, and Ollama unloads the model after each",
    run_baseline,
    independent=True,
)
KEEP_ALIVE = Strategy(
    "keep-alive",
    "one row at a time, as written, with the model loaded before and kept",
    run_alone,
    independent=True,
)
CONTEXT = Strategy(
    "keep-alive+context",
    "one row at a time, each behind the context that Ollama gave for the first row",
    run_in_context,
    _needs_context,
)
CONVERSATION = Strategy(
    "conversation",
    f"one growing chat: what all rows share, the last {KEPT_MESSAGES} messages, the row",
    run_conversation,
    full_after=KEPT_MESSAGES // 2,
)
PREFIX = Strategy(
    "prefix",
    "Gristmill: rows as written, as many at once as the engine takes",
    run_together,
    at_once=True,
)
LABELS = Strategy(
    "prefix+labels",
    "Gristmill: the same, with only the labels' probabilities, or an answer that must be one of the labels",
    run_labels,
    _needs_labels,
    at_once=True,
)
STRATEGIES = (BASELINE, KEEP_ALIVE, CONTEXT, CONVERSATION, PREFIX, LABELS)


def expected_value(labels: list[str], scores: LabelScores) -> float | None:
    """The mean of the labels under their probabilities among one another; None where one is no number."""
    try:
        values = [float(label) for label in labels]
    except ValueError:
        return None
    highest = max(scores.logprobs)
    weights = [math.exp(logprob - highest) for logprob in scores.logprobs]
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
