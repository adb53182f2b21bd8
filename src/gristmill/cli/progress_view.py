"""What takes long, shown until it ends: a batch, a download."""

from __future__ import annotations

import time
from typing import Self

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gristmill.cli import show
from gristmill.cli.show import console
from gristmill.client import Silence
from gristmill.printable import printable
from gristmill.telemetry.progress import duration
from gristmill.wire.batch import Batch

#: Without a terminal, progress is one line this often (seconds), the first one sooner.
_FIRST_LINE, _LINE_INTERVAL = 2.0, 30.0
#: Seconds without an answer after which it is said how long ago the last one was.
_LONG_WITHOUT = 10.0
_WAITING = "waiting"


class ProgressView:
    """A live bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description:<11}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._began = time.monotonic()
        self._next_line = self._began + _FIRST_LINE
        #: When rows were first seen to run, and how many were done then.
        self._first_seen: tuple[float, int] | None = None
        #: How many rows were done, and when that was first seen.
        self._done: tuple[int, float] | None = None
        self._silent = False
        self._last = ("", 0, 1)

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self._bar.stop()

    def waiting(self, waiting_for: str) -> None:
        """Before there is a batch. ``waiting_for``: what for, in words."""
        elapsed = duration(time.monotonic() - self._began)
        self._show(_WAITING, 0, 1, f"for {printable(waiting_for)} ({elapsed})")

    def update(self, batch: Batch) -> None:
        counts, now = batch.request_counts, time.monotonic()
        done = counts.completed + counts.failed
        if self._first_seen is None and batch.status == "in_progress":
            self._first_seen = (now, done)
        if self._done is None or self._done[0] != done:
            self._done = (done, now)
        answers_again, self._silent = self._silent, False
        if answers_again and not console.is_terminal:
            console.print("The server answers again.")
        detail = "  ".join(filter(None, (self._signs_of_life(batch, now), show.rates(batch))))
        self._show(printable(batch.status), done, counts.total, detail, at_once=answers_again)

    def no_answer(self, silence: Silence) -> None:
        since = show.local_time(silence.since)
        begins, self._silent = not self._silent, True
        self._show(*self._last, f"no answer since {since}: {printable(silence.reason)}", at_once=begins)

    def speed(self, batch: Batch) -> str:
        """Rows answered while this view looked on, and how fast; nothing where it saw too little to tell."""
        if self._first_seen is None:
            return ""
        since, rows_before = self._first_seen
        rows = batch.request_counts.completed + batch.request_counts.failed - rows_before
        seconds = time.monotonic() - since
        if rows <= 0 or seconds < 1:
            return ""
        return f"{rows:,} rows in {duration(seconds)}: {show.number(rows / seconds)} rows/s."

    def _signs_of_life(self, batch: Batch, now: float) -> str:
        parts = [duration(now - self._began)]
        progress = batch.gristmill
        if progress is not None and progress.requests_in_flight is not None:
            parts.append(f"{progress.requests_in_flight:,} in flight")
        if batch.usage is not None and batch.usage.total_tokens:
            parts.append(f"{batch.usage.total_tokens:,} tokens so far")
        if batch.status == "in_progress" and self._first_seen is not None and self._done is not None:
            waited = now - self._done[1]
            if not self._done[0]:
                parts.append("no answer yet")
            elif waited >= _LONG_WITHOUT:
                parts.append(f"last answer {duration(waited)} ago")
        return ", ".join(parts)

    def _show(self, status: str, done: int, total: int, detail: str, at_once: bool = False) -> None:
        self._last = (status, done, total)
        if console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task(status, total=1, detail="")
            self._bar.update(self._task, description=status, completed=done, total=max(total, 1), detail=detail)
        elif at_once or time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_INTERVAL
            console.print(f"{status} {detail}" if status == _WAITING else f"{status}: {done:,}/{total:,} {detail}")


class DownloadView:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        columns = (BarColumn(bar_width=30), DownloadColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> DownloadView:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
