"""Showing batches: tables, JSON, a progress bar, a summary."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from gristmill.wire.batch import Batch, BatchError

_TERMINAL = ("completed", "failed", "expired", "cancelled")
#: Without a terminal, progress is one line this often (seconds).
_LINE_INTERVAL = 30.0
_SHOWN_ERRORS = 20
#: Characters; more than any table has.
_WIDE = 1_000

console = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def out() -> Console:
    """Standard output: cut to the terminal's width; to a file or a pipe, whole."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def print_table(table: Table) -> None:
    out().print(table)


def is_terminal(batch: Batch) -> bool:
    return batch.status in _TERMINAL


class ProgressView:
    """A live bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[rates]}"),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._next_line = time.monotonic() + 2.0
        #: When rows were first seen to run, and how many were done then.
        self._first_seen: tuple[float, int] | None = None

    def __enter__(self) -> ProgressView:
        if console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self._bar.stop()

    def speed(self, batch: Batch) -> str:
        """Rows answered while this view looked on, and how fast; nothing where it saw too little to tell."""
        if self._first_seen is None:
            return ""
        since, rows_before = self._first_seen
        rows = batch.request_counts.completed + batch.request_counts.failed - rows_before
        seconds = time.monotonic() - since
        if rows <= 0 or seconds < 1:
            return ""
        return f"{rows:,} rows in {duration(seconds)}: {_number(rows / seconds)} rows/s."

    def update(self, batch: Batch) -> None:
        counts = batch.request_counts
        done = counts.completed + counts.failed
        if self._first_seen is None and batch.status == "in_progress":
            self._first_seen = (time.monotonic(), done)
        if console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task(batch.status, total=1, rates="")
            self._bar.update(
                self._task, description=batch.status, completed=done, total=max(counts.total, 1), rates=rates(batch)
            )
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_INTERVAL
            console.print(f"{batch.status}: {done:,}/{counts.total:,} {rates(batch)}")


def rates(batch: Batch) -> str:
    """Speed, reuse, failures and the time left, as far as they are known."""
    parts = []
    if batch.request_counts.failed:
        parts.append(f"{batch.request_counts.failed:,} failed")
    progress = batch.gristmill
    if progress is None:
        return "  ".join(parts)
    if progress.rows_per_second is not None:
        parts.append(f"{_number(progress.rows_per_second)} rows/s")
    if progress.tokens_per_second is not None:
        parts.append(f"{_number(progress.tokens_per_second)} tokens/s")
    if progress.reused_share is not None:
        parts.append(f"{progress.reused_share:.1%} reused")
    if progress.eta_seconds is not None:
        parts.append(f"{duration(progress.eta_seconds)} left")
    if progress.waiting_for:
        parts.append(f"waiting: {progress.waiting_for}")
    return "  ".join(parts)


def summary(batch: Batch) -> str:
    """What came of a batch, in one or two sentences."""
    counts = batch.request_counts
    unrun = counts.total - counts.completed - counts.failed
    text = f"{batch.status.capitalize()}: {counts.completed:,} of {counts.total:,} rows answered"
    text += f", {counts.failed:,} failed" if counts.failed else ""
    text += f", {unrun:,} not run" if unrun else ""
    text += "."
    if batch.gristmill and batch.gristmill.plan and (copied := batch.gristmill.plan.deduplicated):
        text += f" Rows that got another row's answer, as they asked the same: {copied:,}."
    if batch.gristmill and (known := batch.gristmill.reused_answers):
        text += f" Rows answered as in an earlier batch: {known:,}."
    if batch.usage is not None and batch.usage.total_tokens:
        usage = batch.usage
        cached = usage.input_tokens_details.cached_tokens
        share = "unknown" if cached is None else f"{cached / max(usage.input_tokens, 1):.1%}"
        text += f" {usage.input_tokens:,} prompt tokens (reused: {share}), {usage.output_tokens:,} output tokens."
    return text


def errors_text(errors: list[BatchError]) -> str:
    """The first reasons why an input was rejected, a line each."""
    lines = [f"  line {error.line}: {error.message}" if error.line else f"  {error.message}" for error in errors]
    more = len(lines) - _SHOWN_ERRORS
    return "\n".join(lines[:_SHOWN_ERRORS] + ([f"  and {more:,} more"] if more > 0 else []))


def batch_table(batches: list[Batch]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "status", "model", "done", "failed", "total", "created"):
        table.add_column(heading, no_wrap=heading != "model")
    for batch in batches:
        counts = batch.request_counts
        created = datetime.fromtimestamp(batch.created_at).strftime("%Y-%m-%d %H:%M:%S")
        figures = (f"{counts.completed + counts.failed:,}", f"{counts.failed:,}", f"{counts.total:,}")
        table.add_row(batch.id, batch.status, batch.model or "", *figures, created)
    return table


def duration(seconds: float) -> str:
    """For people: "0.8 s", "95 s", "0:12:03", "3 days, 4:05:06"."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return str(timedelta(seconds=round(seconds)))


def _number(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
