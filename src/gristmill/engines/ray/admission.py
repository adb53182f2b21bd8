"""What a replica begins with: requests side by side, or one alone, whichever of its clients they are from."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from gristmill.engines.isolation import NotYet
from gristmill.engines.ray.trials import longest_wait

T = TypeVar("T")


class Taken(Exception):
    """The replica is kept free for a request that another client asks alone."""


class _Waiter(NamedTuple):
    alone: bool
    let_in: asyncio.Future[None]


class Admission:
    """A client that asks something alone has the replica from then on: what the others are asking is answered first,
    what they ask meanwhile is refused, so that other replicas answer it. The client's own requests wait for each other
    in the order in which they came.

    None waits for long, as a client that hangs may have lost what it asked by the time it is let in: it is to ask
    again, and has the replica for ``stale`` seconds for that.
    """

    def __init__(self, stale: float) -> None:
        #: Being answered.
        self.in_flight = 0
        self._stale = stale
        self._alone_in_flight = False
        self._has_it: str | None = None
        #: Requests of that client's that are to be alone, waiting or in flight.
        self._claims = 0
        #: While there are none, but one is about to be asked again: when that is no more expected.
        self._kept: asyncio.TimerHandle | None = None
        self._waiting: deque[_Waiter] = deque()

    async def answer(self, client: str, alone: bool, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask`` comes to. Raises Taken and NotYet, where that was not called."""
        if self._has_it is not None and self._has_it != client:
            raise Taken
        if self._claims == 0:
            # A client that asks something else instead wants it for that no more.
            self._give_back()
        if alone:
            self._has_it = client
            self._claims += 1
        again = False
        try:
            if self._has_it is not None:
                try:
                    async with asyncio.timeout(longest_wait(self._stale)):
                        await self._wait(alone)
                except TimeoutError:
                    again = True
                    raise NotYet from None
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
                if self._claims == 0:
                    self._give_back()
                    if again:
                        self._has_it = client
                        self._kept = asyncio.get_running_loop().call_later(self._stale, self._give_back)
            self._let_in()

    def _give_back(self) -> None:
        self._has_it = None
        if self._kept is not None:
            self._kept.cancel()
            self._kept = None

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
