"""What the form of a scoring asks, as the conductor takes it."""

from __future__ import annotations

from gristmill.scoring.jobs.job import ScoreForm
from gristmill.scoring.questionnaire import ScoreOptions


def options_of(form: ScoreForm) -> ScoreOptions:
    return ScoreOptions(
        id_column=form.id_column,
        columns=form.columns or None,
        criteria=form.criteria,
        method=form.method,
        reason=form.reason,
        name=form.name,
    )
