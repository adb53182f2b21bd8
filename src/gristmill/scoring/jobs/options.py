"""What the form of a scoring asks, as the conductor takes it."""

from __future__ import annotations

from gristmill.scoring.calibrated_table import TruthUse
from gristmill.scoring.calibration import Aims
from gristmill.scoring.jobs.job import ScoreForm
from gristmill.scoring.questionnaire import ScoreOptions


def options_of(form: ScoreForm) -> ScoreOptions:
    return ScoreOptions(
        id_column=form.id_column,
        columns=[each for each in form.columns if each != form.truth] or None,
        criteria=form.criteria,
        method=form.method,
        reason=form.reason,
        name=form.name,
        truth=form.truth,
        truth_use=TruthUse(Aims(form.confidence, form.cut, form.truth_cut), form.by, form.truth_wanted),
    )
