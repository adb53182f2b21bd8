"""A scoring that a server runs, as it is written down in its folder."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gristmill.scoring.calibration_view import CalibrationView
from gristmill.scoring.jobs.rank_summary import PlanSummary, RankSummary, Step
from gristmill.scoring.rank.wish import RankWish
from gristmill.storage.scope import Scope


class JobStatus(StrEnum):
    #: The table is there, and nothing has been asked yet.
    DRAFT = "draft"
    RUNNING = "running"
    #: The pilot of a ranking has been judged, and somebody is to say whether it goes on.
    PLANNED = "planned"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TableFacts(msgspec.Struct):
    """``sample``: the first rows, as texts that may be clipped."""

    columns: list[str]
    rows: int
    sample: list[list[str]]


class ScoreForm(msgspec.Struct, tag="score"):
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
    #: The column of right scores, which is not sent, and what they are used for; see ``TruthUse``.
    truth: str | None = None
    by: str | None = None
    cut: float | None = None
    truth_cut: float | None = None
    confidence: float = 0.9
    truth_wanted: int = 0


class ProxyKind(StrEnum):
    FEATURES = "features"
    COLUMN = "column"
    MODEL = "model"
    EMBEDDINGS = "embeddings"


class ProxyChoice(msgspec.Struct, frozen=True):
    """``name``: of the column, or of the model that the server serves, which scores or embeds."""

    kind: ProxyKind = ProxyKind.FEATURES
    name: str = ""


class RankForm(msgspec.Struct, tag="rank"):
    """What is asked of the rows, and which of them are wanted. ``look``: after the pilot, the plan is told, and nothing
    more is judged before somebody has said so."""

    questions: ScoreForm
    wish: RankWish
    proxy: ProxyChoice = ProxyChoice()
    look: bool = True


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
    #: What right scores say of all rows.
    calibrated: CalibrationView | None = None


class ScoreJob(msgspec.Struct):
    """``table`` is the file's name as its owner calls it, ``file`` what it is called in the job's folder; ``scope`` is
    its owner's. Times are Unix seconds. ``batches``: ids, in the order in which they ran. ``wanted``: rows to find the
    right score of, which are in a file of their own; None where none were asked for. ``attempt``: anew each time that
    its owner has it begin or go on; a process that takes over from another does not change it."""

    id: str
    created_at: int
    scope: Scope
    table: str
    file: str
    status: JobStatus = JobStatus.DRAFT
    facts: TableFacts | None = None
    form: ScoreForm | RankForm | None = None
    batches: list[str] = []
    attempt: str = ""
    error: str | None = None
    ended_at: int | None = None
    summaries: list[ScoreSummary] = []
    wanted: int | None = None
    #: Of a ranking.
    step: Step | None = None
    plan: PlanSummary | None = None
    best: RankSummary | None = None

    @property
    def can_go_on(self) -> bool:
        """Whether what has been judged is kept for more to be judged: of a ranking that waits for its owner, failed, or
        could certify nothing."""
        if not isinstance(self.form, RankForm):
            return False
        if self.status is JobStatus.COMPLETED:
            return self.best is not None and not self.best.certified
        return self.status in (JobStatus.PLANNED, JobStatus.FAILED) and self.step is not None
