"""The ways to send rows that share a prompt: what people do, and what Gristmill does."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

import msgspec

from gristmill.bench.rows import marked, with_messages
from gristmill.bench.session import KeepsContext, Turn, Unloads
from gristmill.engines.protocol import Engine, EngineError, LabelRequest, LabelScorer, LabelScores
from gristmill.wire.chat import ChatCompletionRequest, Message

Rows = list[ChatCompletionRequest]

#: Messages a conversation keeps besides the system message, as it was once proposed.
KEPT_MESSAGES = 100
#: Enough for any label's tokens and the end of the answer.
_LABEL_TOKENS = 8


class Strategy(Protocol):
    """``independent``: rows are asked alone, so that there is nothing to drift from. ``at_once``: many rows are in
    flight. ``full_after``: how many rows a turn needs before its rows cost what later ones do."""

    name: str
    about: str
    independent: bool
    at_once: bool
    full_after: int

    def missing(self, engine: Engine, labels: list[str]) -> str:
        """Why it cannot be used here; empty if it can."""
        ...

    async def run(self, turn: Turn, rows: Rows) -> None:
        """Ask for every row once, noting every outcome in ``turn``."""
        ...


class Baseline:
    name = "baseline"
    about = "one row at a time, nothing kept: every prompt begins differently, and Ollama unloads the model after each"
    independent = True
    at_once = False
    full_after = 1

    def missing(self, engine: Engine, labels: list[str]) -> str:
        return ""

    async def run(self, turn: Turn, rows: Rows) -> None:
        for row, request in enumerate(rows):
            if isinstance(turn.engine, Unloads):
                try:
                    await turn.engine.unload()
                except EngineError as error:
                    turn.failed(row, error)
                    continue
            await turn.complete(row, marked(request, f"Row {row}."))


class KeepAlive:
    name = "keep-alive"
    about = "one row at a time, as written, with the model loaded before and kept"
    independent = True
    at_once = False
    full_after = 1

    def missing(self, engine: Engine, labels: list[str]) -> str:
        return ""

    async def run(self, turn: Turn, rows: Rows) -> None:
        for row, request in enumerate(rows):
            await turn.complete(row, request)


class KeepAliveContext:
    name = "keep-alive+context"
    about = "one row at a time, each behind the context that Ollama gave for the first row"
    independent = False
    at_once = False
    full_after = 1

    def missing(self, engine: Engine, labels: list[str]) -> str:
        return "" if isinstance(engine, KeepsContext) else "only Ollama has the context parameter"

    async def run(self, turn: Turn, rows: Rows) -> None:
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


class Conversation:
    name = "conversation"
    about = f"one growing chat: what all rows share, the last {KEPT_MESSAGES} messages, the row"
    independent = False
    at_once = False
    full_after = KEPT_MESSAGES // 2

    def missing(self, engine: Engine, labels: list[str]) -> str:
        return ""

    async def run(self, turn: Turn, rows: Rows) -> None:
        history: list[Message] = []
        for row, request in enumerate(rows):
            *shared, own = request.messages
            while True:
                completion = await turn.complete(row, with_messages(request, [*shared, *history, own]))
                if completion is not None or not history or turn.outcomes[-1].error_code != "context_length_exceeded":
                    break
                # What the row failed of is the chat's length: the older half of it goes, and the row is asked again.
                turn.outcomes.pop()
                history = history[len(history) // 4 * 2 + 2 :]
            if completion is not None:
                answer = Message("assistant", completion.choices[0].text)
                history = [*history, own, answer][-KEPT_MESSAGES:]


class Prefix:
    name = "prefix"
    about = "Gristmill: rows as written, as many at once as the engine takes"
    independent = False
    at_once = True
    full_after = 1

    def missing(self, engine: Engine, labels: list[str]) -> str:
        return ""

    async def run(self, turn: Turn, rows: Rows) -> None:
        # The first row alone, so that what the prefix costs is known apart; and no other row computes it too.
        await turn.complete(0, rows[0])
        await asyncio.gather(*(turn.complete(row, request) for row, request in enumerate(rows[1:], 1)))


class PrefixLabels:
    name = "prefix+labels"
    about = "Gristmill: the same, with only the labels' probabilities, or an answer that must be one of the labels"
    independent = False
    at_once = True
    full_after = 1

    def missing(self, engine: Engine, labels: list[str]) -> str:
        if not labels:
            return "say which answers there are, with --labels"
        if isinstance(engine, LabelScorer) or "structured_outputs" in engine.capabilities.parameters:
            return ""
        return f"the {engine.name} engine can neither score labels nor limit an answer to them"

    async def run(self, turn: Turn, rows: Rows) -> None:
        ask = self._score if isinstance(turn.engine, LabelScorer) else self._choose
        await ask(turn, 0, rows[0])
        await asyncio.gather(*(ask(turn, row, request) for row, request in enumerate(rows[1:], 1)))

    async def _score(self, turn: Turn, row: int, request: ChatCompletionRequest) -> None:
        scores = await turn.score(row, LabelRequest(request.model, request.messages, turn.labels))
        if scores is not None:
            best = max(range(len(turn.labels)), key=scores.logprobs.__getitem__)
            turn.scored(row, turn.labels[best], expected_value(turn.labels, scores), scores)

    async def _choose(self, turn: Turn, row: int, request: ChatCompletionRequest) -> None:
        limited = msgspec.structs.replace(
            request, structured_outputs={"choice": turn.labels}, response_format=None,
            max_completion_tokens=_LABEL_TOKENS, max_tokens=None,
        )  # fmt: skip
        await turn.complete(row, limited)


STRATEGIES: tuple[Strategy, ...] = (
    Baseline(), KeepAlive(), KeepAliveContext(), Conversation(), Prefix(), PrefixLabels(),
)  # fmt: skip


def expected_value(labels: list[str], scores: LabelScores) -> float | None:
    """The mean of the labels under their probabilities among one another; None where one is no number."""
    try:
        values = [float(label) for label in labels]
    except ValueError:
        return None
    highest = max(scores.logprobs)
    weights = [math.exp(logprob - highest) for logprob in scores.logprobs]
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
