"""What is measured side by side: engines of Gristmill and servers, asked for the same rows in turns."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple, Protocol

import msgspec

from gristmill.engines.protocol import Engine, LabelRequest, LabelScorer, Request
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest

LABELS = [str(number) for number in range(11)]
#: Most probable tokens asked for with a score's token: more than the eleven labels.
_TOP = 20
#: As many as Gristmill's own text completions have, as OpenAI's.
_TOP_OF_TEXT = 5

#: A text, or the messages of a chat.
Prompt = str | list[dict[str, str]]


class Work(NamedTuple):
    """``tokens``: the most that an answer has; with 1 it is scores that are wanted."""

    title: str
    tokens: int

    @property
    def is_scores(self) -> bool:
        return self.tokens == 1


WORKS = (Work("label scores", 1), Work("16 tokens", 16))


class Measured(NamedTuple):
    rows_per_second: float
    completion_tokens: int


class Contender(Protocol):
    """``slots``: requests that it computes at a time. ``facts``, once it has started, are for the receipt."""

    slots: int

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def answer(self, prompts: list[Prompt], work: Work) -> int:
        """Greedy answers; returns their tokens together, 0 for label scores."""
        ...

    def facts(self) -> dict[str, Any]: ...


class EngineContender:
    """One of Gristmill's engines: label scores where it has them, else one token with the most probable ones."""

    slots = 1

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._engine: Engine | None = None

    async def start(self) -> None:
        engine = create_engine(self._settings)
        await engine.start()
        self._engine = engine
        self.slots = engine.capabilities.slots

    async def stop(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.stop()

    async def answer(self, prompts: list[Prompt], work: Work) -> int:
        engine = self._engine
        assert engine is not None
        (model, *_) = engine.models
        places = asyncio.Semaphore(self.slots)

        async def one(prompt: Prompt) -> int:
            async with places:
                if work.is_scores and isinstance(engine, LabelScorer):
                    asked = prompt if isinstance(prompt, str) else msgspec.convert(prompt, list[Message])
                    await engine.score(LabelRequest(model, asked, LABELS))
                    return 0
                return (await engine.complete(_request(model, prompt, work))).completion_tokens

        return sum(await asyncio.gather(*map(one, prompts)))

    def facts(self) -> dict[str, Any]:
        assert self._engine is not None
        computing = self._engine.capabilities.computing
        return {"slots": self.slots, "computes_on": computing.on if computing else None}


def body_of(model: str, prompt: Prompt, work: Work) -> dict[str, Any]:
    """Of a chat completion or a text completion, as OpenAI has them."""
    body: dict[str, Any] = {"model": model, "max_tokens": work.tokens, "temperature": 0}
    if isinstance(prompt, str):
        return body | {"prompt": prompt} | ({"logprobs": _TOP} if work.is_scores else {})
    return body | {"messages": prompt} | ({"logprobs": True, "top_logprobs": _TOP} if work.is_scores else {})


def _request(model: str, prompt: Prompt, work: Work) -> Request:
    body = body_of(model, prompt, work)
    if not isinstance(prompt, str):
        return msgspec.convert(body, ChatCompletionRequest)
    return msgspec.convert(body | ({"logprobs": _TOP_OF_TEXT} if work.is_scores else {}), CompletionRequest)


async def measure(contender: Contender, prompts: list[Prompt], work: Work) -> Measured:
    started = time.perf_counter()
    tokens = await contender.answer(prompts, work)
    return Measured(round(len(prompts) / (time.perf_counter() - started), 3), tokens)
