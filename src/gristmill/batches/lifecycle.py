"""The states of a batch, as pure functions from what happened to what changes.

validating --> in_progress --> finalizing --> completed
    |               |              |
    |               +--> expired   |                                  (expired also from validating)
    +--> failed     +--------------+--> cancelling --> cancelled      (cancelling also from validating)
"""

from __future__ import annotations

import re
from enum import Enum, auto

from gristmill.storage.records import TERMINAL_STATUSES, BatchRecord, Changes, Stage
from gristmill.wire.batch import BatchError, BatchPlan

VALIDATING = "validating"
IN_PROGRESS = "in_progress"
FINALIZING = "finalizing"
COMPLETED = "completed"
FAILED = "failed"
EXPIRED = "expired"
CANCELLING = "cancelling"
CANCELLED = "cancelled"


class CannotCancel(Exception):
    """The batch has ended some other way."""


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
    """None where the batch has ended. ``now`` is in Unix seconds: a window follows the wall clock."""
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
    return Step.VALIDATE if batch.status == VALIDATING else Step.EXECUTE


def rejected(errors: list[BatchError], now: int) -> Changes:
    """The input failed validation; nothing ran."""
    return {"status": FAILED, "failed_at": now, "errors": errors}


def validated(total: int, model: str | None, plan: BatchPlan, now: int) -> Changes:
    return {"status": IN_PROGRESS, "in_progress_at": now, "total": total, "model": model, "plan": plan}


def all_rows_done(now: int) -> Changes:
    return {"status": FINALIZING, "finalizing_at": now}


def cancel_requested(status: str, now: int) -> Changes | None:
    """None where the batch is being or has been cancelled already. Raises CannotCancel."""
    if status in (CANCELLING, CANCELLED):
        return None
    if is_terminal(status):
        raise CannotCancel(status)
    return {"status": CANCELLING, "cancelling_at": now}


def ended(status: str, output_file_id: str | None, error_file_id: str | None, now: int) -> Changes:
    """``status`` is completed, failed, expired or cancelled; file ids only of files that have a line."""
    return {
        "status": status,
        f"{status}_at": now,
        "output_file_id": output_file_id,
        "error_file_id": error_file_id,
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
