"""What a replica begins with: requests side by side, or one alone, whichever of its clients they are from."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from gristmill.engines.errors import unavailable

T = TypeVar("T")

_TAKEN = "The replica is kept free for a request that another server asks alone."


class _Waiter(NamedTuple):
    alone: bool
    let_in: asyncio.Future[None]


class Admission:
    """A client that asks something alone has the replica from then on: what the others are asking is answered first,
    what they ask meanwhile is refused, so that other replicas answer it. The client's own requests wait for each other
    in the order in which they came.
    """

    def __init__(self) -> None:
        #: Being answered.
        self.in_flight = 0
        self._alone_in_flight = False
        self._has_it: str | None = None
        #: Requests of that client's that are to be alone, waiting or in flight.
        self._claims = 0
        self._waiting: deque[_Waiter] = deque()

    async def answer(self, client: str, alone: bool, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask`` comes to. Raises EngineError: unavailable, where another client has the replica."""
        if self._has_it is not None and self._has_it != client:
            raise unavailable(_TAKEN)
        if alone:
            self._has_it = client
            self._claims += 1
        try:
            if self._has_it is not None:
                await self._wait(alone)
            else:
                self.in_flight += 1
            try:
                return await ask()
            finally:
                self.in_flight -= 1
                self._alone_in_flight = False
        finally:
            if alone:
                self._claims -= 1
                self._has_it = self._has_it if self._claims else None
            self._let_in()

    async def _wait(self, alone: bool) -> None:
        waiter = _Waiter(alone, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._let_in()
        try:
            await waiter.let_in
        except asyncio.CancelledError:
            if not waiter.let_in.cancel() and not waiter.let_in.cancelled():
                # Let in and cancelled in the same moment.
                self.in_flight -= 1
                self._alone_in_flight = False
            raise

    def _let_in(self) -> None:
        while self._waiting and not self._alone_in_flight:
            waiter = self._waiting[0]
            if not waiter.let_in.done():
                if waiter.alone and self.in_flight:
                    return
                self.in_flight += 1
                self._alone_in_flight = waiter.alone
                waiter.let_in.set_result(None)
            self._waiting.popleft()
