"""What the server and the process that works on a scoring say to each other: a line of JSON each, over its pipes."""

from __future__ import annotations

from typing import Any

import msgspec

from gristmill.scoring.jobs.job import RankForm, ScoreForm, ScoreSummary, TableFacts
from gristmill.scoring.jobs.rank_summary import PlanSummary, RankSummary, Step
from gristmill.wire.batch import Batch


class Inspect(msgspec.Struct, tag="inspect"):
    """Asks what the table at the path is; answered with ``Inspected``."""

    path: str


class Score(msgspec.Struct, tag="score"):
    """Asks for the scores of the table ``file`` in ``folder``, which its owner calls ``table``, or for its best rows;
    answered with ``Finished``, or with ``Planned`` or ``Ranked``. ``labels``: whether the engine gives the
    probabilities of labels. ``attempt``: of the job, see there."""

    folder: str
    file: str
    table: str
    form: ScoreForm | RankForm
    labels: bool
    attempt: str


class Check(msgspec.Struct, tag="check"):
    """Asks whether it could work, as far as that can be told before anything is asked; answered with ``Checked``."""

    task: Score


class Checked(msgspec.Struct, tag="checked"):
    pass


class Inspected(msgspec.Struct, tag="inspected"):
    facts: TableFacts


class RunPass(msgspec.Struct, tag="pass"):
    """Asks the server for a batch; answered with ``PassEnded``, or ``Refused``. See ``ScoreBackend.run``."""

    folder: str
    model: str
    input_file: str
    endpoint: str
    shared: dict[str, Any]
    identity: dict[str, Any]


class PassEnded(msgspec.Struct, tag="ended"):
    batch: Batch
    files: list[str]


class Finished(msgspec.Struct, tag="finished"):
    """The result and the report are in the job's folder, and the rows to find right scores of, where some are
    ``wanted``."""

    summaries: list[ScoreSummary]
    wanted: int | None = None


class Began(msgspec.Struct, tag="began"):
    """A step of a ranking; it is not answered. A ranking that goes on tells those before, too."""

    step: Step


class Planned(msgspec.Struct, tag="planned"):
    """The pilot is judged, and what the rest would cost is known."""

    plan: PlanSummary


class Ranked(msgspec.Struct, tag="ranked"):
    """The list, the certificate and the report are in the job's folder."""

    summary: RankSummary


class Refused(msgspec.Struct, tag="refused"):
    """It cannot be done, and a person is told why."""

    message: str


Task = Inspect | Check | Score
End = Finished | Planned | Ranked
FromWorker = Inspected | Checked | RunPass | Began | End | Refused
ToWorker = PassEnded | Refused
