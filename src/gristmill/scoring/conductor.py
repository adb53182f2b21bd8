"""A whole scoring: everything checked that can be before an engine runs, then prompts to look at, an audit, or scores.

The command line and ``gristmill.score`` are faces of it: they say what to score and where, and show what comes back.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from gristmill.extras import require
from gristmill.planning.token_bill import Prices
from gristmill.scoring.audit import Difference, audit, spread_rows
from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.calibrated_table import calibrated_table
from gristmill.scoring.columns import with_scores
from gristmill.scoring.computation import computations_in
from gristmill.scoring.condition import Condition
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.passes import Passes, PassSettings
from gristmill.scoring.prompt import GENERATE
from gristmill.scoring.questionnaire import Prompt, Questionnaire, ScoreOptions, labels_method
from gristmill.scoring.questions import Question
from gristmill.scoring.receipt import NO_FILES, Escalated, ReceiptFiles, ScoreReceipt, score_receipt
from gristmill.scoring.report import About, ScoreReport, score_page, score_reports
from gristmill.scoring.scale import Scale
from gristmill.scoring.table import truth_values
from gristmill.wire.batch import Batch


class Escalation(NamedTuple):
    """Scores for which ``condition`` holds (see ``Condition``) are asked of ``backend``, a better model, too."""

    condition: str
    backend: ScoreBackend


class ScoredTable(NamedTuple):
    """``table`` with the scores as further columns; ``outcomes`` by row and score; ``batches`` as they ended, in the
    order in which they ran; a report for each score. ``wanted``: rows whose right score is to be
    found, where any are."""

    table: pl.DataFrame
    outcomes: list[list[Outcome]]
    batches: list[Batch]
    reports: list[ScoreReport]
    wanted: pl.DataFrame | None = None


class Scoring:
    """Asks for every score of a table. Nothing but a folder remembers what has been asked."""

    def __init__(
        self,
        table: pl.DataFrame,
        rubric: str,
        scale: Scale,
        options: ScoreOptions,
        backend: ScoreBackend,
        escalation: Escalation | None = None,
    ) -> None:
        """Raises UserError for whatever cannot work."""
        self.names = options.names
        self._table = table
        self._options = options
        self._backend = backend
        self._questionnaire = Questionnaire(table, rubric, scale, options, backend)
        self._truths = self._read_truths()
        self._condition = self._check_escalation(escalation)
        self._escalation = escalation

    def prompts(self, rows: int) -> Iterator[Prompt]:
        """What all rows share, and the own part of the first ``rows``."""
        return self._questionnaire.prompts(rows)

    def audit(self, rows: int, folder: Path) -> list[Difference]:
        """How far ``rows`` scores, spread over the table, differ under changes that should not matter. ``folder`` is an
        empty one. Raises UserError."""
        chosen = spread_rows(self._table.height, min(rows, self._table.height))
        return audit(self._settings, chosen, self._questionnaire.text_of, folder, self._backend)

    def run(self, folder: Path) -> ScoredTable:
        """``folder`` keeps what has been done, for the next time. Raises UserError, and Interrupted where a signal
        ended it before."""
        settings, text_of = self._settings, self._questionnaire.text_of
        not_asked = Outcome(settings.method.name, error="it was not asked")
        found = [[not_asked] * len(self.names) for _ in range(self._table.height)]
        unasked: dict[int, Outcome] = {}
        questions = self._questionnaire.questions(range(self._table.height), unasked)
        passes = Passes(folder, self._backend, settings, text_of)
        with self._backend.session():
            for question, outcome in passes.outcomes(questions, settings.method):
                found[question.row][question.criterion] = outcome
        for row, outcome in unasked.items():
            found[row] = [outcome] * len(self.names)
        batches = passes.batches
        if self._escalation is not None:
            batches = batches + self._escalate(self._escalation.backend, folder, found)
        scale = settings.instrument.scale
        reports = score_reports(self._questionnaire.ids, found, self.names, scale, self._truths, text_of)
        scored = ScoredTable(with_scores(self._table, found, self.names), found, batches, reports)
        return scored if self._truths is None else self._with_truths(scored, self._truths)

    def page(self, title: str, scored: ScoredTable, prices: Prices) -> str:
        """The report, as HTML."""
        about = About(title, self._settings.instrument, self._backend.model, self._backend.place, time.time())
        return score_page(about, scored.reports, scored.batches, prices)

    def receipt(self, folder: Path, scored: ScoredTable, files: ReceiptFiles = NO_FILES) -> ScoreReceipt:
        """Of a run in ``folder``, before that goes."""
        better = folder / "escalated"
        asked_twice = None
        if self._escalation is not None:
            asked_twice = Escalated(self._escalation.condition, computations_in(better))
        computed = computations_in(folder, without=better)
        return score_receipt(self._questionnaire, computed, asked_twice, scored.table, files)

    @property
    def _settings(self) -> PassSettings:
        return self._questionnaire.settings

    def _with_truths(self, scored: ScoredTable, truths: list[float | None]) -> ScoredTable:
        options, values = self._options, self._settings.instrument.scale.values
        assert options.truth is not None
        table, wanted, reports = scored.table, None, []
        for report in scored.reports:
            found = calibrated_table(
                table, report.name, truths, options.truth, options.truth_use, (values[0], values[-1])
            )
            table, wanted = found.table, found.wanted
            reports.append(report._replace(calibration=found.calibration))
        return scored._replace(table=table, reports=reports, wanted=wanted)

    def _escalate(self, backend: ScoreBackend, folder: Path, found: list[list[Outcome]]) -> list[Batch]:
        condition = self._condition
        assert condition is not None
        unsure = [
            Question(row, criterion)
            for row, criterion in itertools.product(range(len(found)), range(len(self.names)))
            if found[row][criterion].score is not None and condition.holds(found[row][criterion])
        ]
        better = Passes(folder / "escalated", backend, self._settings, self._questionnaire.text_of)
        with backend.session():
            method = GENERATE if self._settings.method is GENERATE else labels_method(backend)
            for question, outcome in better.outcomes(iter(unsure), method):
                before = found[question.row][question.criterion]
                found[question.row][question.criterion] = escalated(before, outcome, backend.model)
        return better.batches

    def _read_truths(self) -> list[float | None] | None:
        if self._options.truth is None:
            return None
        # What will be compared in the end must not fail only then.
        require("scipy.stats", "score")
        if self._options.truth not in self._table.columns and self._options.truth_use.wanted:
            # The first ones are still to be found.
            return [None] * self._table.height
        return truth_values(self._table, self._options.truth)

    def _check_escalation(self, escalation: Escalation | None) -> Condition | None:
        if escalation is None:
            return None
        condition = Condition(escalation.condition)
        condition.check(self._settings.method)
        return condition


def escalated(before: Outcome, after: Outcome, model: str) -> Outcome:
    """Both scores are kept. Where the better model has none, the first one stands, and says what was wrong."""
    if after.score is None:
        return msgspec.structs.replace(before, error=f"{model} was asked, too: {after.error}")
    return msgspec.structs.replace(after, model=model, before=before.score)
