"""An event loop for code that has none, or must not use the one it was called from."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

_LOOK_SECONDS = 0.2


class OwnLoop:
    """``run`` one piece of work after another, then ``close``. Tasks that a piece leaves behind rest until the next
    one. Where the caller's thread runs an event loop already, as in notebooks, another thread does the work."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if not _in_a_loop():
            return self._runner.run(work)
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

        async def begin() -> T:
            task = asyncio.current_task()
            assert task is not None
            started.set_result((asyncio.get_running_loop(), task))
            return await work

        def cancel() -> None:
            loop, task = started.result()
            loop.call_soon_threadsafe(task.cancel)

        return _in_thread(lambda: self._runner.run(begin()), cancel)

    def close(self) -> None:
        """Ends what still runs."""
        if _in_a_loop():
            _in_thread(self._runner.close, lambda: None)
        else:
            self._runner.close()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_thread(work: Callable[[], T], cancel: Callable[[], None]) -> T:
    """An interrupt ends the work, which puts its things away first, and stays the caller's."""
    caller = asyncio.current_task()
    ended: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            ended.set_exception(error)
        else:
            ended.set_result(result)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not wait([ended], timeout=_LOOK_SECONDS).done:
            # asyncio.run makes a cancellation of an interrupt, which this thread, busy here, sees only if it looks.
            if caller is not None and caller.cancelling():
                raise asyncio.CancelledError
        return ended.result()
    except (KeyboardInterrupt, asyncio.CancelledError):
        if not ended.done():
            cancel()
        raise
    finally:
        thread.join()
