"""What a batch's own page tells of it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from gristmill.batches import lifecycle
from gristmill.html_page import day, one_line
from gristmill.web.batch_row import BatchRow, batch_row
from gristmill.wire.batch import Batch, BatchProgress
from gristmill.wire.prefix_tree import PrefixBox

#: Groups in the table beside the picture, and reasons why an input was refused.
_GROUPS, _ERRORS = 12, 50
_ACTIONS_WHILE_IT_RUNS = (lifecycle.VALIDATING, lifecycle.IN_PROGRESS)


class Fact(NamedTuple):
    name: str
    value: str
    note: str = ""


class RefusedLine(NamedTuple):
    """Why the input was refused; ``line`` counts from 1, None for the file as a whole."""

    line: int | None
    message: str


class Link(NamedTuple):
    """``saved_as`` is the name of a download."""

    text: str
    address: str
    saved_as: str = ""


class BatchFacts(NamedTuple):
    """``facts`` are figures, ``about`` what it was asked to do; ``actions`` are those that it allows now."""

    row: BatchRow
    facts: list[Fact]
    about: list[Fact]
    refusals: list[RefusedLine]
    actions: list[str]
    files: list[Link]
    relatives: list[Link]


def batch_facts(batch: Batch, name: str) -> BatchFacts:
    errors = batch.errors.data[:_ERRORS] if batch.errors else []
    row = batch_row(batch, name)
    return BatchFacts(
        row=row,
        facts=_facts(batch, row),
        about=_about(batch),
        refusals=[RefusedLine(each.line, one_line(each.message)) for each in errors],
        actions=_actions(batch),
        files=_files(batch),
        relatives=_relatives(batch),
    )


def most_saving(boxes: list[PrefixBox]) -> list[PrefixBox]:
    """For the table beside the picture."""
    return sorted(boxes, key=lambda box: -box.saved)[:_GROUPS]


def _facts(batch: Batch, row: BatchRow) -> list[Fact]:
    progress, usage = batch.gristmill or BatchProgress(), batch.usage
    found = [
        Fact("time left", row.left, row.band),
        Fact("reused of the prompts", row.reused),
        Fact("answered", f"{batch.request_counts.completed:,}"),
        Fact("failed", f"{row.failed:,}" if row.failed else ""),
    ]
    if usage is not None:
        found += [Fact("prompt tokens", f"{usage.input_tokens:,}"), Fact("output tokens", f"{usage.output_tokens:,}")]
    if progress.plan is not None and progress.plan.deduplicated:
        found.append(Fact("rows that ask the same as another", f"{progress.plan.deduplicated:,}", "answered once"))
    if progress.reused_answers:
        found.append(Fact("answered as in an earlier batch", f"{progress.reused_answers:,}"))
    return [fact for fact in found if fact.value]


def _about(batch: Batch) -> list[Fact]:
    progress = batch.gristmill or BatchProgress()
    times = [
        ("made", batch.created_at), ("began to run", batch.in_progress_at), ("paused", progress.paused_at),
        ("completed", batch.completed_at), ("failed", batch.failed_at), ("expired", batch.expired_at),
        ("cancelled", batch.cancelled_at),
    ]  # fmt: skip
    found = [
        Fact("id", batch.id),
        Fact("endpoint", batch.endpoint),
        Fact("model", one_line(batch.model or "", 100)),
        Fact("window", batch.completion_window, f"until {day(batch.expires_at)} UTC" if batch.expires_at else ""),
        Fact("priority", str(progress.priority) if progress.priority else ""),
        *(Fact(name, f"{day(at)} UTC") for name, at in times if at is not None),
        *(Fact(one_line(key, 64), one_line(value, 300)) for key, value in (batch.metadata or {}).items()),
    ]
    return [fact for fact in found if fact.value]


def _actions(batch: Batch) -> list[str]:
    counts, progress = batch.request_counts, batch.gristmill or BatchProgress()
    if batch.status in _ACTIONS_WHILE_IT_RUNS:
        return ["pause" if progress.paused_at is None else "resume", "cancel"]
    if batch.status == lifecycle.FINALIZING:
        return ["cancel"]
    return ["retry"] if lifecycle.is_terminal(batch.status) and counts.completed < counts.total else []


def _files(batch: Batch) -> list[Link]:
    """Before the end, what there is so far; after it with what retries have added."""
    counts, progress = batch.request_counts, batch.gristmill or BatchProgress()
    ended = lifecycle.is_terminal(batch.status)
    whole = ended and progress.retried_by is None
    kinds = [
        ("output", "answers", batch.output_file_id, counts.completed),
        ("error", "errors", batch.error_file_id, counts.failed),
    ]
    found = []
    for kind, name, file_id, rows in kinds:
        if whole and file_id is not None:
            found.append(Link(name, f"/v1/files/{file_id}/content", f"{batch.id}.{name}.jsonl"))
        elif not whole and (rows or file_id is not None):
            text = f"{name}, with those of retries" if ended else f"{name} so far"
            found.append(Link(text, f"/v1/batches/{batch.id}/results?kind={kind}", f"{batch.id}.{name}.jsonl"))
    return [*found, Link("input", f"/v1/files/{batch.input_file_id}/content", f"{batch.id}.input.jsonl")]


def _relatives(batch: Batch) -> list[Link]:
    progress = batch.gristmill or BatchProgress()
    named = [("the batch that it asks again", progress.retry_of), ("the batch that asks it again", progress.retried_by)]
    return [Link(text, f"/batches/{batch_id}") for text, batch_id in named if batch_id is not None]
