"""Where requests to an engine have their places: in the window, beside it, and alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from gristmill.dispatch.fair_share import Flow
from gristmill.dispatch.slots import Place, Slots
from gristmill.dispatch.stop import Stop
from gristmill.engines.isolation import isolates
from gristmill.engines.protocol import Engine


class Places:
    """``limit`` is the size of the window. An engine that puts interactive requests first has places for them besides.
    One that isolates has some to be asked alone at a time: who has such a place has one in the window as well, and the
    others keep theirs."""

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self._window = Slots(limit)
        reserved = engine.capabilities.interactive_slots
        self._interactive = Slots(reserved) if reserved else self._window
        self._alone = Slots(engine.capabilities.alone_slots) if isolates(engine) else None

    @property
    def isolates(self) -> bool:
        """Whether who is alone leaves the others their places."""
        return self._alone is not None

    @property
    def limit(self) -> int:
        return self._window.limit

    @property
    def in_flight(self) -> int:
        beside = 0 if self._interactive is self._window else self._interactive.in_flight
        return self._window.in_flight + beside

    @property
    def full(self) -> bool:
        """All but one of the window's places are in use, or all."""
        return self._window.in_flight >= self._window.limit - 1

    def resize(self, limit: int) -> None:
        if limit != self._window.limit:
            self._window.resize(limit)

    def forget(self, flow: str) -> None:
        """The flow has ended; nothing of it is waiting."""
        self._window.forget(flow)
        if self._alone is not None:
            self._alone.forget(flow)

    def interactive(self) -> AbstractAsyncContextManager[Place]:
        return self._interactive.place()

    def of_batch(self, flow: Flow, alone: bool, stop: Stop) -> AbstractAsyncContextManager[Place]:
        """Raises Stopped if ``stop`` is requested while there is no place yet."""
        if alone and self._alone is not None:
            return self._both(self._alone, flow, stop)
        return self._window.place(flow, alone, stop)

    @asynccontextmanager
    async def _both(self, alone: Slots, flow: Flow, stop: Stop) -> AsyncIterator[Place]:
        # How many there are changes with the servers that are there.
        if (now := self._engine.capabilities.alone_slots) != alone.limit:
            alone.resize(now)
        async with alone.place(flow, stop=stop), self._window.place(flow, stop=stop) as place:
            yield place
