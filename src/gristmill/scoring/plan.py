"""From what a user wants scored to the job that does it, with everything checked that can be before an engine runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from gristmill.models.extra import require
from gristmill.scoring.examples import read_examples
from gristmill.scoring.job import ScoreJob, ScoreSettings, check_names
from gristmill.scoring.passes import Backend
from gristmill.scoring.prompt import GENERATE, LABELS, Instrument, Method
from gristmill.scoring.scale import Scale
from gristmill.scoring.table import check_ids, truth_values
from gristmill.scoring.template import RowTemplate, render_rubric
from gristmill.user_error import UserError


class Wanted(NamedTuple):
    """``row`` is a template, None for all columns but ids and truths. ``examples`` are rows with their right scores.
    ``name`` is the score's where there are no ``criteria``."""

    rubric: str
    scale: Scale
    id_column: str | None = None
    row: str | None = None
    examples: pl.DataFrame | None = None
    criteria: Sequence[str] = ()
    reason: bool = False
    name: str = "score"
    truth: str | None = None
    most_off_scale: float = 0.5

    @property
    def names(self) -> list[str]:
        """Of the scores."""
        return list(self.criteria) or [self.name]


class Planned(NamedTuple):
    """``truths`` are right scores by row, None where none were named."""

    job: ScoreJob
    settings: ScoreSettings
    truths: list[float | None] | None


def plan(table: pl.DataFrame, wanted: Wanted, method: Method) -> Planned:
    """Raises UserError."""
    if len(set(wanted.names)) < len(wanted.names):
        raise UserError(f"A criterion is named twice: {', '.join(wanted.names)}.")
    if wanted.reason and method is not GENERATE:
        raise UserError("The method labels gives no reasons: use the method generate for them.")
    if wanted.id_column is not None:
        check_ids(table, wanted.id_column)
    check_names(table, wanted.names)
    if wanted.truth is not None:
        # What will be compared in the end must not fail only then.
        require("scipy.stats", "score")
    truths = truth_values(table, wanted.truth) if wanted.truth is not None else None
    hidden = (wanted.id_column, wanted.truth)
    template = RowTemplate(wanted.row, table.columns, [each for each in table.columns if each not in hidden])
    values = {"scale": wanted.scale.text, "criteria": ", ".join(wanted.criteria)}
    rubric = render_rubric(wanted.rubric, table.columns, values)
    if not rubric:
        raise UserError("The rubric is empty.")
    examples = []
    if wanted.examples is not None:
        examples = read_examples(wanted.examples, template, wanted.names, wanted.criteria, wanted.scale)
    instrument = Instrument(rubric, wanted.scale, tuple(wanted.criteria), examples, wanted.reason)
    settings = ScoreSettings(instrument, method, wanted.most_off_scale)
    return Planned(ScoreJob(table, template, settings), settings, truths)


def choose_method(name: str | None, wanted: Wanted, backend: Backend) -> Method:
    """``name`` None: labels where the backend gives the probabilities of all of them. Raises UserError."""
    if name not in (None, "labels", "generate"):
        raise UserError(f"There is no method '{name}': choose labels or generate.")
    if name == "generate" or (name is None and wanted.reason):
        return GENERATE
    method = backend.labels_method
    # The most probable tokens alone tell less: only for those who ask for it.
    return method if method is LABELS or name == "labels" else GENERATE
