"""Rows among which some crash whichever replica answers them, and what came of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.retry import RetryPolicy
from gristmill.dispatch.stop import Stop
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import AnyAnswer, AnyRequest
from gristmill.engines.ray.engine import RayEngine
from gristmill.wire.chat import ChatCompletionRequest, Message


class Outcomes(NamedTuple):
    """Row numbers; ``meanwhile``: for each row that was asked alone, how many others were answered until it ended."""

    poisonous: frozenset[int]
    others: frozenset[int]
    answered: set[int]
    errors: set[int]
    meanwhile: list[int]
    most_alone: int


def of_poison(folder: Path) -> dict[str, Any]:
    """Options of the simulated engine."""
    return {"slots": 8, "latency": 0.05, "crash_on": "POISON", "asked_journal": folder / "asked"}


def asked_of(folder: Path) -> Counter[int]:
    """How often each row reached an engine."""
    return Counter(int(line.split()[-1]) for line in (folder / "asked").read_text().splitlines())


async def outcomes_of(engine: RayEngine, rows: int, poisonous: frozenset[int], since: int = 0) -> Outcomes:
    """Of ``rows`` rows, numbered from ``since``, each asked through a dispatcher."""
    others = frozenset(range(since, since + rows)) - poisonous
    answered, errors, meanwhile, alone = set[int](), set[int](), list[int](), Counter[str]()
    ask_alone = engine.ask_alone

    async def watched(request: AnyRequest) -> AnyAnswer:
        before = len(answered)
        alone["now"] += 1
        alone["most"] = max(alone["most"], alone["now"])
        try:
            return await ask_alone(request)
        finally:
            alone["now"] -= 1
            meanwhile.append(len(answered) - before)

    engine.ask_alone = watched  # type: ignore[method-assign]
    dispatcher, stop = Dispatcher(engine, policy=RetryPolicy(first_delay=0.01, max_delay=0.02)), Stop()
    waiting = iter(range(since, since + rows))

    async def work() -> None:
        for number in waiting:
            text = f"POISON {number}" if number in poisonous else f"row {number}"
            messages = [Message("user", text)]
            try:
                await dispatcher.ask(ChatCompletionRequest(model="simulated", messages=messages, max_tokens=2), stop)
            except EngineError:
                assert number not in errors
                errors.add(number)
            else:
                assert number not in answered
                answered.add(number)

    async with asyncio.timeout(120):
        await asyncio.gather(*(work() for _ in range(dispatcher.window)))
    return Outcomes(poisonous, others, answered, errors, meanwhile, alone["most"])
