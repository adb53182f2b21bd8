"""What a page tells of the engine."""

from __future__ import annotations

from typing import NamedTuple

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.protocol import CountsLoads
from gristmill.telemetry import metrics


class EngineFacts(NamedTuple):
    """``trouble`` says why it cannot answer, or what it waits for; empty where all is well. ``loads`` is None
    where that is not known of such an engine; ``reprefilled`` rows took much less from its prefix cache than
    planned. All three count from the server's start."""

    name: str
    models: tuple[str, ...]
    trouble: str
    in_flight: int
    limit: int
    finds_limit: bool
    context: int | None
    loads: int | None
    restarts: int
    reprefilled: int


def engine_facts(dispatcher: Dispatcher) -> EngineFacts:
    engine = dispatcher.engine
    waits = f"waiting for {dispatcher.waiting_for}" if dispatcher.waiting_for else ""
    return EngineFacts(
        name=engine.name,
        models=engine.models,
        trouble=dispatcher.down_reason or waits,
        in_flight=dispatcher.in_flight,
        limit=dispatcher.limit,
        finds_limit=dispatcher.finds_limit,
        context=engine.capabilities.context_length,
        loads=engine.loads if isinstance(engine, CountsLoads) else None,
        restarts=metrics.total("gristmill_engine_restarts"),
        reprefilled=metrics.total("gristmill_reprefilled_rows"),
    )
