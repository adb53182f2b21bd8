"""Failures that pass by themselves: a process or system that is out of file descriptors or memory for a moment."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gristmill.storage.errors import DiskFull, NoCredentials, StorageError, Unreachable

T = TypeVar("T")

#: What fails so is tried again for this long (seconds).
PATIENCE = 5.0
_PAUSE = 0.05
_NUMBERS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN)


class UnderPressure(StorageError):
    """``number`` is the system's error number."""

    def __init__(self, number: int) -> None:
        advice = "raise the limit (ulimit -n)" if number == errno.EMFILE else "end other programs"
        super().__init__(f"The system refuses to open or read a file ({os.strerror(number)}): {advice}.")


def is_pressure(number: int | None) -> bool:
    return number in _NUMBERS


def may_pass(error: Exception) -> bool:
    """Whether what kept a server from its start may be over at the next one, with nothing set otherwise."""
    if isinstance(error, OSError):
        return is_pressure(error.errno) or error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, (Unreachable, DiskFull, UnderPressure)) and not isinstance(error, NoCredentials)


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """``work()``, repeated while it raises UnderPressure, for as long as ``PATIENCE``."""
    deadline = time.monotonic() + PATIENCE
    pause = _PAUSE
    while True:
        try:
            return await work()
        except UnderPressure:
            if time.monotonic() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, 1.0)
