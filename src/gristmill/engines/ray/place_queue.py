"""The requests that found no replica free, in the order in which they get a place."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from gristmill.engines.errors import unavailable
from gristmill.engines.isolation import NotYet
from gristmill.engines.ray.pool_request import PoolRequest


class PlaceQueue:
    """Interactive ones first, and of either kind the one that has waited longest. Those that are to be alone wait for
    places of another kind, and for no more than ``longest`` seconds at a time."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._interactive: deque[PoolRequest] = deque()
        self._others: deque[PoolRequest] = deque()
        self._alone: deque[PoolRequest] = deque()

    def __len__(self) -> int:
        return len(self._interactive) + len(self._others) + len(self._alone)

    def add(self, request: PoolRequest) -> None:
        if request.alone:
            self._alone.append(request)
            asyncio.get_running_loop().call_later(self._longest, self._send_back, request)
        else:
            (self._interactive if request.interactive else self._others).append(request)

    def forget(self, request: PoolRequest) -> None:
        """Its answer is wanted no more. It is passed over when it comes to the front, which may be long."""
        request.message = b""

    def _send_back(self, request: PoolRequest) -> None:
        if request.replica is None and not request.future.done():
            self.forget(request)
            request.future.set_exception(NotYet())

    def place(self, place: Callable[[PoolRequest], bool]) -> None:
        """One after another by ``place``, until that says that there is no room."""
        if _placed(self._interactive, place):
            _placed(self._others, place)
        # After the others, so that these get a round of places after each of them, however many there are.
        _placed(self._alone, place)

    def fail(self, why: str) -> None:
        """All of them, as unavailable."""
        for queue in (self._interactive, self._others, self._alone):
            for request in queue:
                if not request.future.done():
                    request.future.set_exception(unavailable(why))
            queue.clear()


def _placed(queue: deque[PoolRequest], place: Callable[[PoolRequest], bool]) -> bool:
    """Whether that was all of them."""
    while queue:
        if not queue[0].future.done() and not place(queue[0]):
            return False
        queue.popleft()
    return True
