"""A scoring that a server runs, as it is written down in its folder."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gristmill.storage.scope import Scope


class JobStatus(StrEnum):
    #: The table is there, and nothing has been asked yet.
    DRAFT = "draft"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TableFacts(msgspec.Struct):
    """``sample``: the first rows, as texts that may be clipped."""

    columns: list[str]
    rows: int
    sample: list[list[str]]


class ScoreForm(msgspec.Struct):
    """What is asked; see ``ScoreOptions``. ``columns`` empty: all but the id's."""

    rubric: str
    scale: str
    model: str
    id_column: str | None = None
    columns: list[str] = []
    criteria: list[str] = []
    method: str | None = None
    reason: bool = False
    name: str = "score"


class ScoreSummary(msgspec.Struct):
    """Of one score. ``histogram``: rows by where their score lies, from the lowest."""

    name: str
    rows: int
    failed: int
    mean: float | None
    median: float | None
    histogram: list[tuple[str, int]]
    #: Rows without a score, the first few: id and why.
    errors: list[tuple[str, str]]


class ScoreJob(msgspec.Struct):
    """``table`` is the file's name as its owner calls it, ``file`` what it is called in the job's folder; ``scope`` is
    its owner's. Times are Unix seconds. ``batches``: ids, in the order in which they ran."""

    id: str
    created_at: int
    scope: Scope
    table: str
    file: str
    status: JobStatus = JobStatus.DRAFT
    facts: TableFacts | None = None
    form: ScoreForm | None = None
    batches: list[str] = []
    error: str | None = None
    ended_at: int | None = None
    summaries: list[ScoreSummary] = []
