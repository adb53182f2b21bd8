"""Pools of replicas for tests, and rows that are asked of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.stop import Stop
from gristmill.engines.ray.engine import RayEngine
from gristmill.engines.ray.frames import Patience
from gristmill.engines.ray.options import RayOptions, ReplicaSettings
from gristmill.engines.simulated import SimulatedEngine, SimulatedOptions
from gristmill.wire.chat import ChatCompletionRequest, Message

PATIENCE = Patience(silence=3.0, starting=60.0, abandoned=600.0)


def engine_of(address: str, replicas: str = "2", **options: Any) -> RayEngine:
    given = {"replicas": replicas, "replica_engine": "simulated", "ray_address": address}
    pool, rest = RayOptions.split({**given, **{key: str(value) for key, value in options.items()}})
    replica = ReplicaSettings("simulated", None, None, rest, pool.cpus, pool.gpus)
    return RayEngine(pool, replica, SimulatedEngine(SimulatedOptions.parse(rest)), PATIENCE)


@asynccontextmanager
async def started(address: str, replicas: str = "2", **options: Any) -> AsyncIterator[RayEngine]:
    engine = engine_of(address, replicas, **options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def row(number: int, rubric: int = 0) -> ChatCompletionRequest:
    messages = [Message("system", f"Rubric {rubric}. " * 200), Message("user", f"row {number}.")]
    return ChatCompletionRequest(model="simulated", messages=messages, max_tokens=4)


async def all_joined(engine: RayEngine, replicas: int) -> None:
    while len(engine._pool.members) < replicas:
        await asyncio.sleep(0.05)


async def answered_once(engine: RayEngine, rows: int, disturb: Any) -> Counter[str]:
    """What came of so many rows, each asked through the dispatcher while ``disturb`` runs."""
    dispatcher, stop, came = Dispatcher(engine), Stop(), Counter[str]()

    async def ask(number: int) -> None:
        answer = await dispatcher.ask(row(number, number % 5), stop)
        came[str(number)] += 1
        assert answer.choices

    disturbing = asyncio.create_task(disturb())
    waiting = iter(range(rows))

    async def work() -> None:
        for number in waiting:
            await ask(number)

    await asyncio.gather(*(work() for _ in range(dispatcher.window)))
    disturbing.cancel()
    await asyncio.gather(disturbing, return_exceptions=True)
    return came
