"""The states of a batch, as pure functions from what happened to what changes.

validating --> in_progress --> finalizing --> completed
    |               |              |
    |               +--> expired   |                                  (expired also from validating)
    +--> failed     +--------------+--> cancelling --> cancelled      (cancelling also from validating)
"""

from __future__ import annotations

import re
from enum import Enum, auto

from gristmill.storage.records import (
    TERMINAL_STATUSES,
    BatchRecord,
    Changes,
    Stage,
)
from gristmill.wire.batch import BatchError, BatchPlan
from gristmill.wire.prefix_tree import PrefixBox

VALIDATING = "validating"
IN_PROGRESS = "in_progress"
FINALIZING = "finalizing"
COMPLETED = "completed"
FAILED = "failed"
EXPIRED = "expired"
CANCELLING = "cancelling"
CANCELLED = "cancelled"


class NotAllowed(Exception):
    """The batch's status does not allow it."""


def is_terminal(status: str) -> bool:
    return status in TERMINAL_STATUSES


class Step(Enum):
    """What is to be done next with a batch."""

    #: Read and check its input.
    VALIDATE = auto()
    #: Ask the engine for the rows that have no result yet.
    EXECUTE = auto()
    #: Every row has a result: nothing but its files is missing.
    FINALIZE = auto()
    #: Write the files of a batch that was cancelled, or whose window is over.
    CANCEL = auto()
    EXPIRE = auto()

    @property
    def stage(self) -> Stage:
        """What the step takes from the machine."""
        return _STAGES.get(self, Stage.ENDING)


_STAGES = {Step.VALIDATE: Stage.VALIDATION, Step.EXECUTE: Stage.EXECUTION}


def next_step(batch: BatchRecord, now: float) -> Step | None:
    """None where the batch has ended, or rests. ``now`` is in Unix seconds: a window follows the wall clock."""
    if is_terminal(batch.status):
        return None
    if batch.status == CANCELLING:
        return Step.CANCEL
    if batch.status == FINALIZING:
        return Step.FINALIZE
    if batch.status == IN_PROGRESS and batch.completed + batch.failed == batch.total:
        return Step.FINALIZE
    if now >= batch.expires_at:
        return Step.EXPIRE
    if batch.paused_at is not None:
        return None
    return Step.VALIDATE if batch.status == VALIDATING else Step.EXECUTE


def rests(batch: BatchRecord, now: float) -> bool:
    """Whether it is paused, and nothing is to be done before somebody resumes it or its window is over. A pause keeps
    no batch from its end: one whose last rows were in flight is completed."""
    return batch.paused_at is not None and next_step(batch, now) is None and not is_terminal(batch.status)


def rejected(errors: list[BatchError], now: int) -> Changes:
    """The input failed validation; nothing ran."""
    return {"status": FAILED, "failed_at": now, "errors": errors, "paused_at": None}


def validated(total: int, model: str | None, plan: BatchPlan, tree: list[PrefixBox] | None, now: int) -> Changes:
    """``tree`` is the picture of what the rows share, None where they could not be planned."""
    found = {"total": total, "model": model, "plan": plan, "prefix_tree": tree}
    return {"status": IN_PROGRESS, "in_progress_at": now, **found}


def all_rows_done(now: int) -> Changes:
    return {"status": FINALIZING, "finalizing_at": now, "paused_at": None}


def cancel_requested(status: str, now: int) -> Changes | None:
    """None where the batch is being or has been cancelled already. Raises NotAllowed."""
    if status in (CANCELLING, CANCELLED):
        return None
    if is_terminal(status):
        raise NotAllowed(status)
    return {"status": CANCELLING, "cancelling_at": now, "paused_at": None}


def pause_requested(batch: BatchRecord, now: int) -> Changes | None:
    """None where it is paused already. The status stays as it is, so that clients wait on. Raises NotAllowed."""
    _check_work_left(batch)
    return None if batch.paused_at is not None else {"paused_at": now}


def resume_requested(batch: BatchRecord) -> Changes | None:
    """None where it is not paused. Raises NotAllowed."""
    _check_work_left(batch)
    return None if batch.paused_at is None else {"paused_at": None}


def priority_requested(batch: BatchRecord, priority: int) -> Changes | None:
    """None where it has that priority. Raises NotAllowed."""
    _check_work_left(batch)
    return None if batch.priority == priority else {"priority": priority}


def _check_work_left(batch: BatchRecord) -> None:
    if batch.status not in (VALIDATING, IN_PROGRESS):
        raise NotAllowed(batch.status)


def ended(status: str, output_file_id: str | None, error_file_id: str | None, now: int) -> Changes:
    """``status`` is completed, failed, expired or cancelled; file ids only of files that have a line."""
    return {
        "status": status,
        f"{status}_at": now,
        "output_file_id": output_file_id,
        "error_file_id": error_file_id,
        "paused_at": None,
    }


_WINDOW = re.compile(r"([1-9][0-9]{0,5})(m|h|d)")
_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86400}
LONGEST_WINDOW_SECONDS = 366 * 86400


def window_seconds(window: str) -> int | None:
    """Seconds of a completion window such as "24h", "90m" or "30d"; None if it is not one."""
    found = _WINDOW.fullmatch(window)
    if found is None:
        return None
    seconds = int(found[1]) * _UNIT_SECONDS[found[2]]
    return seconds if seconds <= LONGEST_WINDOW_SECONDS else None
