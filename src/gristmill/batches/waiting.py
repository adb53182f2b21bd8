"""Waiting for an engine, not in silence and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gristmill.engines.protocol import Engine, TellsWhatItWaitsFor
from gristmill.user_error import UserError

T = TypeVar("T")

#: Called several times a second with what is waited for, in words, as the end of "waiting for".
Tell = Callable[[str], None]

LOOK_SECONDS = 0.2


def silently(waiting_for: str) -> None:
    pass


def start_waits_for(engine: Engine) -> str:
    told = engine.waiting_for if isinstance(engine, TellsWhatItWaitsFor) else None
    return told or f"the {engine.name} engine to start"


async def while_told(work: Coroutine[Any, Any, T], waiting_for: Callable[[], str], tell: Tell, wait: float) -> T:
    """The result of ``work``. Raises UserError, having cancelled it, after ``wait`` seconds."""
    began = time.monotonic()
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_SECONDS))[0]:
            tell(waiting_for())
            if time.monotonic() - began > wait:
                raise UserError(
                    f"The engine was not ready after {wait:g} seconds: it waited for {waiting_for()}. "
                    "Give it longer with --wait, if it needs it."
                )
        return await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
