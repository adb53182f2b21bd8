"""Showing things on a terminal or in a pipe: text from outside made harmless, tables, JSON, batches."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.batches.lifecycle import is_terminal
from gristmill.finding import Finding
from gristmill.printable import printable, printable_json, printable_lines
from gristmill.telemetry.progress import duration
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch, BatchError
from gristmill.wire.files import File
from gristmill.wire.webhooks import WebhookDelivery

_SHOWN_ERRORS = 20
#: Characters; more than any table has.
_WIDE = 1_000
_USUAL_WIDTH = 80
_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


class _Terminal(Console):
    """Text is shown as it is, never read as markup, and nothing of it is obeyed by the terminal."""

    def __init__(self, stderr: bool = False, soft_wrap: bool = True) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=soft_wrap, markup=False, emoji=False)
        if self.width < 1:
            # A terminal that does not say how wide it is.
            self.width = _USUAL_WIDTH

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable_lines(text), **options)

    def on_broken_pipe(self) -> None:
        """Nobody reads our messages any more: what they are about goes on. Nobody reads our output: we are done."""
        if not self.stderr:
            raise typer.Exit
        self.quiet = True


console = _Terminal(stderr=True)


def print_text(text: str) -> None:
    """To standard output, whole lines, as they are but for what a terminal would obey."""
    sys.stdout.write(printable_lines(text) + "\n")


def print_json(value: Any) -> None:
    sys.stdout.write(printable_json(msgspec.json.format(msgspec.json.encode(value)).decode()) + "\n")


def out() -> Console:
    """Standard output, for lines; a terminal wraps them itself."""
    return _Terminal()


def print_finding(finding: Finding) -> None:
    terminal = out()
    verdict = Text(f"{finding.verdict:7}", _COLOURS[finding.verdict])
    terminal.print(verdict.append(f"  {printable(finding.check)}: {printable(finding.detail)}", "default"))
    if finding.advice:
        terminal.print(f"         -> {printable(finding.advice)}")


def print_table(table: Table) -> None:
    """Cut to the terminal's width; to a file or a pipe, whole. Its cells must be ``printable``, or our own."""
    console = _Terminal(soft_wrap=False)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(table)


def rates(batch: Batch) -> str:
    """Speed, reuse, failures and the time left, as far as they are known."""
    parts = []
    if batch.request_counts.failed:
        parts.append(f"{batch.request_counts.failed:,} failed")
    progress = batch.gristmill
    if progress is None:
        return "  ".join(parts)
    if progress.rows_per_second is not None:
        parts.append(f"{number(progress.rows_per_second)} rows/s")
    if progress.tokens_per_second is not None:
        parts.append(f"{number(progress.tokens_per_second)} tokens/s")
    if progress.reused_share is not None:
        parts.append(f"{progress.reused_share:.1%} reused")
    if progress.eta_seconds is not None:
        parts.append(f"{duration(progress.eta_seconds)} left")
    if progress.waiting_for:
        parts.append(f"waiting: {printable(progress.waiting_for)}")
    return "  ".join(parts)


def summary(batch: Batch) -> str:
    """What came of a batch, in one or two sentences."""
    counts = batch.request_counts
    unrun = counts.total - counts.completed - counts.failed
    text = f"{printable(batch.status).capitalize()}: {counts.completed:,} of {counts.total:,} rows answered"
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


def told(delivery: WebhookDelivery) -> str:
    """How the end of a run was told to its webhook."""
    if delivery.status == "delivered":
        return "The webhook has been told."
    why = printable(delivery.last_error or "it has not answered yet.")
    return f"The webhook was not told: {why} Nothing stays of a run, so this is not tried again."


def downloaded(chain: list[Batch]) -> str:
    """What is worth knowing of the answers of a batch and its retries that were just downloaded; may be nothing."""
    batch, last = chain[0], chain[-1]
    answered, total = sum(each.request_counts.completed for each in chain), batch.request_counts.total
    texts = []
    if not is_terminal(last.status):
        failed = f", {last.request_counts.failed:,} failed" if last.request_counts.failed else ""
        rows = f"{answered:,} of {total:,} rows answered so far{failed}" if total else "no row has run yet"
        name = printable(last.id)
        texts.append(
            f"This is a part: {rows}. {name} is {_status(last)}; download again when it has ended "
            f"(gristmill batches watch {name})."
        )
    elif not answered:
        texts.append("No row was answered, so there is no output file.")
    if len(chain) > 1:
        retries = ", ".join(printable(each.id) for each in chain[1:])
        texts.append(f"With the answers of what was retried in {retries}: {answered:,} of {total:,} rows answered.")
    return " ".join(texts)


def warning(batch: Batch) -> str:
    """What may yet go wrong; empty where nothing is known to."""
    plan = batch.gristmill.plan if batch.gristmill is not None else None
    return "" if plan is None or is_terminal(batch.status) else printable(plan.disk_warning or "")


def relations(batch: Batch) -> list[str]:
    """How it stands to other batches: its priority, what it retries, and what retries it."""
    progress = batch.gristmill
    if progress is None:
        return []
    texts = [f"Priority {progress.priority}"] if progress.priority else []
    links = (("Retries what was not answered in", progress.retry_of), ("Retried by", progress.retried_by))
    return texts + [f"{what} {printable(batch_id)}" for what, batch_id in links if batch_id is not None]


def _status(batch: Batch) -> str:
    paused = batch.gristmill is not None and batch.gristmill.paused_at is not None
    return printable(batch.status) + (" (paused)" if paused else "")


def errors_text(errors: list[BatchError]) -> str:
    """The first reasons why an input was rejected, a line each."""
    lines = [(f"  line {error.line}: " if error.line else "  ") + printable(error.message) for error in errors]
    more = len(lines) - _SHOWN_ERRORS
    return "\n".join(lines[:_SHOWN_ERRORS] + ([f"  and {more:,} more"] if more > 0 else []))


def batch_table(batches: list[Batch]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "status", "model", "completed", "failed", "total", "created"):
        table.add_column(heading, no_wrap=heading != "model")
    for batch in batches:
        counts = batch.request_counts
        created = local_time(batch.created_at)
        figures = (f"{counts.completed:,}", f"{counts.failed:,}", f"{counts.total:,}")
        table.add_row(printable(batch.id), _status(batch), printable(batch.model or ""), *figures, created)
    return table


def file_table(files: list[File]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "bytes", "purpose", "created", "name"):
        table.add_column(heading, justify="right" if heading == "bytes" else "left", no_wrap=heading != "name")
    for file in files:
        created = local_time(file.created_at)
        table.add_row(printable(file.id), f"{file.bytes:,}", printable(file.purpose), created, printable(file.filename))
    return table


def local_time(seconds: float) -> str:
    """Of a moment in seconds of the Unix epoch, on this machine's clock; nothing for one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return ""


def number(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def write_page(target: Path, text: str) -> None:
    """Raises UserError."""
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from None
