"""An event loop whose time is simulated and whose interleaving a seed chooses.

Time passes only when nothing is left to do. Of the callbacks that are due together any may come first, and what would
run in a thread runs in the loop, after a delay that the seed chooses: so every ``await`` is a place where anything else
may happen before it goes on.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

#: Tasks of killed processes. Collected, they would be closed, and tidy up after all.
GRAVEYARD: list[asyncio.Task[Any]] = []
#: Callbacks of one process.
ENDLESS = 60_000


class _Numbered:
    """Hashed by a number of its own: where it lies in memory, and so the order of a set, differs from run to run."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._number = next(_numbers)
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._number


_numbers = itertools.count()


class _Task(_Numbered, asyncio.Task[Any]): ...


class _Future(_Numbered, asyncio.Future[Any]): ...


class Killed(BaseException):
    """The simulated process is gone: nothing that was under way goes on, and nothing is tidied up."""


class Deadlock(AssertionError):
    """Everything waits for something that nothing will bring about."""


class Endless(AssertionError):
    """It goes on and on."""


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type,misc]
    """Waits for no descriptor: moves the time on instead."""

    loop: SeededLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise Deadlock
        self.loop.now += max(timeout, 0)
        return []


class SeededLoop(asyncio.SelectorEventLoop):
    """``kill_at``: the number of callbacks after which the process is killed; None: never."""

    def __init__(self, chance: random.Random, begin: float = 0.0, kill_at: int | None = None) -> None:
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self.now = begin
        self.steps = 0
        self._chance = chance
        self._kill_at = kill_at
        self.set_exception_handler(lambda *_: None)
        self.set_task_factory(lambda loop, work, **options: _Task(work, loop=loop, **options))

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(loop=self)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """A write that its caller no longer waits for happens all the same, as in a thread."""
        future = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except BaseException as error:
                self.call_later(self._delay(), _settle, future.set_exception, future, error)
            else:
                self.call_later(self._delay(), _settle, future.set_result, future, result)

        # One writer: what was submitted first runs first.
        self._last_start = max(getattr(self, "_last_start", 0.0), self.now) + self._delay()
        self.call_at(self._last_start, work)
        return future

    def _delay(self) -> float:
        return self._chance.choice((0.0, 1e-6, 1e-4, 0.003, 0.02))

    def _run_once(self) -> None:
        if len(self._ready) > 1:  # type: ignore[attr-defined]
            self._chance.shuffle(self._ready)  # type: ignore[attr-defined]
        self.steps += max(len(self._ready), 1)  # type: ignore[attr-defined]
        if self._kill_at is not None and self.steps >= self._kill_at:
            raise Killed
        if self.steps > ENDLESS:
            raise Endless
        super()._run_once()  # type: ignore[misc]


def _settle(settle: Callable[[Any], None], future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        settle(value)


def live(
    main: Callable[[], Coroutine[Any, Any, None]], chance: random.Random, begin: float, kill_at: int | None
) -> tuple[float, bool]:
    """Run ``main``; when its process ended, and whether it was killed."""
    loop = SeededLoop(chance, begin, kill_at)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main())
        return loop.now, False
    except Killed:
        return loop.now, True
    finally:
        for task in asyncio.all_tasks(loop):
            GRAVEYARD.append(task)
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        asyncio.set_event_loop(None)
        loop._ready.clear()  # type: ignore[attr-defined]
        loop._scheduled.clear()  # type: ignore[attr-defined]
        loop.close()
