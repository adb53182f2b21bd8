"""A process that is killed by SIGKILL at a chosen statement of its database."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from sqlalchemy import Engine, event


def run_until_statement(number: int, work: Callable[[], Awaitable[None]]) -> bool:
    """Run ``work`` in a process of its own that dies just before or just after a statement or commit, the
    ``number``-th of all these moments, counted from 1. False where it ended before there were so many."""
    pid = os.fork()
    if pid == 0:
        try:
            _die_at(number)
            asyncio.run(work())  # type: ignore[arg-type]
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the process failed before it could be killed"
    return False


def _die_at(number: int) -> None:
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(Engine, moment, count)
