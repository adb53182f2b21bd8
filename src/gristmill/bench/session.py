"""One strategy's turn at the engine: it asks, and every answer or failure is noted with its time."""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple, Protocol, runtime_checkable

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.stop import Stop
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import Completion, LabelRequest, LabelScores
from gristmill.wire.chat import ChatCompletionRequest

_NUMBER = re.compile(r"(?:(?<![\w])-)?\d+(?:\.\d+)?")


@runtime_checkable
class Unloads(Protocol):
    """An engine whose server can be told to drop its model."""

    async def unload(self) -> None: ...


@runtime_checkable
class KeepsContext(Protocol):
    """An engine with Ollama's deprecated ``context``: a conversation so far, as tokens."""

    async def complete_in_context(
        self, request: ChatCompletionRequest, context: list[int]
    ) -> tuple[Completion, list[int]]: ...


class RowResult(NamedTuple):
    """Of one row. ``finished``: seconds since the turn began. ``score``: the number the answer gives, if any.

    ``cached_tokens`` is None where the engine does not report it; a failed row has ``error`` and counts nothing.
    """

    row: int
    finished: float
    text: str = ""
    score: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int | None = 0
    output_tokens: int = 0
    error: str = ""
    error_code: str | int | None = None


def number_in(text: str) -> float | None:
    """The first number in an answer."""
    found = _NUMBER.search(text)
    return float(found.group()) if found else None


class StrategyTurn:
    """Collects what came of the rows of one strategy in one round."""

    def __init__(self, dispatcher: Dispatcher, labels: list[str]) -> None:
        self.dispatcher = dispatcher
        self.engine = dispatcher.engine
        self.labels = labels
        self.results: list[RowResult] = []
        # The loop's clock: in tests it may be a simulated one.
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()
        self._never = Stop()

    async def complete(self, row: int, request: ChatCompletionRequest) -> Completion | None:
        """Ask as a batch would, with retries; None where the row failed."""
        try:
            completion = await self.dispatcher.ask(request, self._never)
        except EngineError as error:
            self.failed(row, error)
            return None
        self.answered(row, completion)
        return completion

    async def score(self, row: int, request: LabelRequest) -> LabelScores | None:
        try:
            return await self.dispatcher.ask(request, self._never)
        except EngineError as error:
            self.failed(row, error)
            return None

    def answered(self, row: int, completion: Completion) -> None:
        text = completion.choices[0].text
        self.results.append(
            RowResult(
                row, self.now(), text, number_in(text),
                completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens,
            )
        )  # fmt: skip

    def scored(self, row: int, label: str, score: float | None, scores: LabelScores) -> None:
        """``label`` is the most probable one."""
        self.results.append(RowResult(row, self.now(), label, score, scores.prompt_tokens, scores.cached_tokens))

    def failed(self, row: int, error: EngineError) -> None:
        self.results.append(RowResult(row, self.now(), error=error.message, error_code=error.code))

    def now(self) -> float:
        """Seconds since the turn began."""
        return self._clock() - self._started
