"""The plan of an input file for which there is no batch yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.batches.input_reader import InputReader, Limits
from gristmill.batches.lines import chunks_of
from gristmill.planning.job_plan import JobPlan, JobPlanner
from gristmill.wire.batch import BatchError

_LISTED_ERRORS = 100


class Rejected(Exception):
    """The file would be refused as a batch's input; ``errors`` has the first reasons, in line order."""

    def __init__(self, errors: list[BatchError]) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = errors


def plan_file(path: Path, endpoint: str, defaults: dict[str, Any] | None, limits: Limits, scratch: Path) -> JobPlan:
    """The plan of the whole file. Raises Rejected. Neither ids nor models are compared with anything: they change
    nothing here. ``scratch`` is an empty folder for what is not kept in memory."""
    reader = InputReader(endpoint, defaults, None, limits._replace(max_listed_errors=_LISTED_ERRORS))
    planner = JobPlanner(endpoint, defaults, scratch)
    for chunk in chunks_of(path):
        for line, data, check in reader.feed(chunk) if chunk else reader.finish():
            planner.add(line.number, data, check.fields)
        if len(reader.errors) >= _LISTED_ERRORS:
            break
    if errors := reader.found():
        raise Rejected(errors)
    return planner.plan()
