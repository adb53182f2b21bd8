"""A process that is killed by SIGKILL at a chosen statement of its database, or change of the disk."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from sqlalchemy import Engine, event

#: What changes what is on the disk, as Python tells its auditors.
_CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "sqlite3.connect", "open")


def run_until_statement(number: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Run ``work`` in a process of its own that dies just before or just after a statement or commit, the
    ``number``-th of all these moments, counted from 1. False where it ended before there were so many."""

    def listen(count: Callable[[], None]) -> None:
        for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(Engine, moment, lambda *_: count())

    return _run_until(number, listen, work)


def run_until_change(number: int, work: Callable[[], Awaitable[object]]) -> bool:
    """The same, just before a change of the disk."""

    def listen(count: Callable[[], None]) -> None:
        def audit(name: str, arguments: tuple[object, ...]) -> None:
            if name in _CHANGES and not (name == "open" and not _writes(arguments)):
                count()

        sys.addaudithook(audit)

    return _run_until(number, listen, work)


def _run_until(
    number: int, listen: Callable[[Callable[[], None]], None], work: Callable[[], Awaitable[object]]
) -> bool:
    """``listen`` has each of the moments counted."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def count() -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            listen(count)
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


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
