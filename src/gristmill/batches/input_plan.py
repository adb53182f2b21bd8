"""Planning an input: a batch's, once it is validated, or a file for which there is no batch yet."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from gristmill.batches import line_check
from gristmill.batches.lines import Line, LineSplitter
from gristmill.batches.plan_process import add_lines
from gristmill.batches.validation import Limits
from gristmill.planning.job_plan import JobPlan, JobPlanner
from gristmill.planning.token_bill import token_bill
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord
from gristmill.wire.batch import BatchError, BatchPlan

_CHUNK = 4 * 1024 * 1024
_LISTED_ERRORS = 100


class Rejected(Exception):
    """The file would be refused as a batch's input; ``errors`` has the first reasons, in line order."""

    def __init__(self, errors: list[BatchError]) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = errors


def plan_file(path: Path, endpoint: str, defaults: dict[str, Any] | None, limits: Limits) -> JobPlan:
    """The plan of the whole file. Raises Rejected. Ids are not looked at: they change nothing here."""
    with tempfile.TemporaryDirectory(prefix="gristmill-plan-") as folder, path.open("rb") as file:
        planner = JobPlanner(endpoint, defaults, Path(folder))
        checker = _Checker(endpoint, defaults, limits)
        splitter = LineSplitter(limits.max_line_bytes)
        while chunk := file.read(_CHUNK):
            add_lines(planner, checker.good(splitter.feed(chunk)))
        add_lines(planner, checker.good(splitter.finish()))
        if not checker.checked:
            raise Rejected([BatchError("empty_file", "The input file is empty.")])
        if checker.errors:
            raise Rejected(checker.errors)
        return planner.plan()


async def store_plan(storage: Storage, batch: BatchRecord, plan: JobPlan) -> BatchPlan:
    """Store the order in which the batch's rows run. Nothing but ``rows.clear`` undoes it."""
    order = [] if plan.in_line_order else plan.order
    await storage.metadata.rows.arrange(batch.seq, order, list(zip(*plan.duplicates, strict=True)))
    bill = token_bill(plan)
    return BatchPlan(len(plan.groups), len(plan.duplicates.lines), bill.sent, bill.computed, bill.output)


class _Checker:
    def __init__(self, endpoint: str, defaults: dict[str, Any] | None, limits: Limits) -> None:
        self._endpoint = endpoint
        self._defaults = defaults
        self._limits = limits
        self._model: str | None = None
        self.checked = 0
        self.errors: list[BatchError] = []

    def good(self, lines: list[Line]) -> list[Line]:
        """Those with nothing wrong; of the others, the first reasons are kept. Raises Rejected when there are many."""
        self.checked += len(lines)
        found = [line for line in lines if self._is_good(line)]
        if len(self.errors) >= _LISTED_ERRORS:
            raise Rejected(self.errors)
        return found

    def _is_good(self, line: Line) -> bool:
        if line.data is None:
            self.errors.append(line_check.too_long(line.number, line.length, self._limits.max_line_bytes))
            return False
        check = line_check.check_line(line.data, line.number, self._endpoint, self._defaults)
        self._model = self._model or check.model
        if check.model is not None and check.model != self._model:
            check.errors.append(line_check.mismatched_model(line.number, check.model))
        self.errors += check.errors
        return not check.errors
