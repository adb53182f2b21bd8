"""Tasks that a process cannot do without: when one fails, the log says so and it starts again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from gristmill.telemetry.log import get_logger

log = get_logger(__name__)

#: Seconds before a failed task starts again; doubled for each failure in a row.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


def supervised(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """A task that runs ``work()`` until it returns or the task is cancelled. Every other end is logged under ``name``
    and ``work`` is called again after a pause, so it must be able to start from what an earlier call left."""
    return asyncio.create_task(_keep_running(name, work), name=name)


async def _keep_running(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    pause = FIRST_PAUSE
    while True:
        started = time.monotonic()
        try:
            return await work()
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            failure: BaseException = error
        except Exception as error:
            failure = error
        if time.monotonic() - started > LONGEST_PAUSE:
            pause = FIRST_PAUSE
        log.error("a task failed and starts again", task=name, pause_seconds=pause, exc_info=failure)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def is_being_cancelled() -> bool:
    """This task. Else a CancelledError says that something which it waited for was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
