"""When work is to stop: one ``Stop`` goes with it through all of its steps, so that none of them can miss it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from enum import IntEnum
from typing import Any, TypeVar

T = TypeVar("T")


class Why(IntEnum):
    """The stronger reason has the higher number, and stays when a weaker one comes."""

    #: The window is over: ask for nothing more, and end the work with what there is.
    EXPIRED = 1
    #: Somebody cancelled: the same.
    CANCELLED = 2
    #: Leave the work as it is, for whoever takes it up next.
    LEAVING = 3


class Stopped(Exception):
    """The step was given up because its ``Stop`` was requested."""


class Stop:
    """Requested once or several times, at any moment, also before the work has begun or between two of its steps.

    Requests to an engine that are in flight may go on for a grace period; everything else ends at once. Of several
    grace periods the one that ends first counts.
    """

    def __init__(self) -> None:
        self.why: Why | None = None
        self._requested = asyncio.Event()
        self._leaving = asyncio.Event()
        self._overdue = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[Any]] = set()
        self._trusted_until: float | None = None
        self._confirmed = asyncio.Event()

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    @property
    def leaving(self) -> bool:
        return self._leaving.is_set()

    def request(self, why: Why, grace: float) -> None:
        """``grace`` is in seconds, from now."""
        self.why = max(why, self.why or why)
        self._requested.set()
        for future in self._waiting:
            if not future.done():
                future.set_exception(Stopped())
        self._waiting.clear()
        if why is Why.LEAVING:
            self._leaving.set()
        loop = asyncio.get_running_loop()
        if grace <= 0:
            self._overdue.set()
        elif self._timer is None or loop.time() + grace < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(grace, self._overdue.set)

    def trust_until(self, moment: float | None) -> None:
        """Nothing more is to be begun after ``moment``, on the monotonic clock, until this is called anew: somebody
        else may be at work by then. None: there is nobody."""
        self._trusted_until = moment
        self._confirmed.set()

    @property
    def trusted(self) -> bool:
        return self._trusted_until is None or time.monotonic() < self._trusted_until

    async def wait_trusted(self) -> None:
        while not self.trusted:
            self._confirmed.clear()
            await self._confirmed.wait()

    def close(self) -> None:
        """The work is over: no timer stays behind."""
        if self._timer is not None:
            self._timer.cancel()

    async def wait(self) -> None:
        """Until it is requested."""
        await self._requested.wait()

    async def wait_overdue(self) -> None:
        """Until it is requested and the grace period is over."""
        await self._overdue.wait()

    async def wait_for(self, future: asyncio.Future[T]) -> T:
        """The result of a bare future. Raises Stopped as soon as the stop is requested. Cheaper than ``unless``."""
        if self.requested:
            raise Stopped
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    async def unless(self, step: Awaitable[T], only_leaving: bool = False) -> T:
        """The result of ``step``. Raises Stopped as soon as the stop is requested; ``step`` has been cancelled then,
        and has ended. Steps that end the work after a cancellation or an expiry give way to ``only_leaving``."""
        event = self._leaving if only_leaving else self._requested
        task = asyncio.ensure_future(step)
        stop = asyncio.ensure_future(event.wait())
        try:
            if not event.is_set():
                await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if not event.is_set():
                return task.result()
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Stopped):
            # What went wrong matters more than that it was to stop.
            raise error
        raise Stopped
