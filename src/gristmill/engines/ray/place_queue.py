"""The requests that found all replicas full, in the order in which they get a place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gristmill.engines.errors import unavailable
from gristmill.engines.ray.pool_request import PoolRequest


class PlaceQueue:
    """Interactive ones first, and of either kind the one that has waited longest."""

    def __init__(self) -> None:
        self._interactive: deque[PoolRequest] = deque()
        self._others: deque[PoolRequest] = deque()

    def __len__(self) -> int:
        return len(self._interactive) + len(self._others)

    def add(self, request: PoolRequest) -> None:
        (self._interactive if request.interactive else self._others).append(request)

    def forget(self, request: PoolRequest) -> None:
        """Its answer is wanted no more. It is passed over when it comes to the front, which may be long."""
        request.message = b""

    def place(self, place: Callable[[PoolRequest], bool]) -> None:
        """One after another by ``place``, until that says that there is no room."""
        for queue in (self._interactive, self._others):
            while queue:
                if not queue[0].future.done() and not place(queue[0]):
                    return
                queue.popleft()

    def fail(self, why: str) -> None:
        """All of them, as unavailable."""
        for queue in (self._interactive, self._others):
            for request in queue:
                if not request.future.done():
                    request.future.set_exception(unavailable(why))
            queue.clear()
