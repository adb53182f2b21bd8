"""A whole scoring: everything checked that can be before an engine runs, then prompts to look at, an audit, or scores.

The command line and ``gristmill.score`` are faces of it: they say what to score and where, and show what comes back.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from gristmill.extras import require
from gristmill.planning.token_bill import Prices
from gristmill.scoring.audit import Difference, audit, spread_rows
from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.columns import check_names, with_scores
from gristmill.scoring.condition import Condition
from gristmill.scoring.examples import read_examples
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.passes import Passes, PassSettings
from gristmill.scoring.prompt import (
    GENERATE,
    LABELS,
    TOP_LOGPROBS,
    TOP_LOGPROBS_BEGUN,
    Instrument,
    Method,
    row_messages,
    shared_body,
)
from gristmill.scoring.questions import Question
from gristmill.scoring.report import About, ScoreReport, score_page, score_reports
from gristmill.scoring.scale import Scale
from gristmill.scoring.table import check_ids, truth_values
from gristmill.scoring.template import RowTemplate, render_rubric
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

#: Longer texts of a row, and empty ones, are an error of the row: no model's context holds the first.
LONGEST_TEXT = 4 * 1024 * 1024
#: Rows taken out of the table at a time.
_BLOCK = 1024


class ScoreOptions(NamedTuple):
    """``row``: a Jinja2 template of what is sent of a row; None for a line for each of ``columns``, which are all but
    those of the id and the truth. ``examples``: rows with their right scores, in columns named like the scores.
    ``criteria``: names, a score each; without them there is one, ``name``. ``method``: labels or generate; None for
    labels where the engine can. ``reason``: ask for a short one, too (generate). ``truth``: the column of right scores.
    A row that ``labels`` leaves more than ``most_off_scale`` of the probability off the scale is asked again, to
    ``generate``."""

    id_column: str | None = None
    row: str | None = None
    columns: Sequence[str] | None = None
    examples: Any = None
    criteria: Sequence[str] = ()
    method: str | None = None
    reason: bool = False
    name: str = "score"
    truth: str | None = None
    most_off_scale: float = 0.5

    @property
    def names(self) -> list[str]:
        """Of the scores."""
        return list(self.criteria) or [self.name]


class Escalation(NamedTuple):
    """Scores for which ``condition`` holds (see ``Condition``) are asked of ``backend``, a better model, too."""

    condition: str
    backend: ScoreBackend


class ScoredTable(NamedTuple):
    """``table`` with the scores as further columns; ``outcomes`` by row and score; ``batches`` as they ended, in the
    order in which they ran; a report for each score."""

    table: pl.DataFrame
    outcomes: list[list[Outcome]]
    batches: list[Batch]
    reports: list[ScoreReport]


class Prompt(NamedTuple):
    """A message as it is sent; ``row`` from 0, None for what all rows share."""

    role: str
    text: str
    row: int | None


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
        method = choose_method(options, backend)
        if len(set(self.names)) < len(self.names):
            raise UserError(f"A criterion is named twice: {', '.join(self.names)}.")
        if options.reason and method is not GENERATE:
            raise UserError("The method labels gives no reasons: use the method generate for them.")
        if options.id_column is not None:
            check_ids(table, options.id_column)
        check_names(table, self.names)
        self._truths = self._read_truths()
        self._template = self._row_template()
        self._settings = PassSettings(self._instrument(rubric, scale), method, options.most_off_scale)
        self._condition = self._check_escalation(escalation)
        self._escalation = escalation
        self._block: tuple[int, list[dict[str, Any]]] = (-1, [])
        self._last = (-1, "")

    def text_of(self, row: int) -> str:
        """What is sent of the row. Raises UserError. Cheap for one row after another."""
        if row != self._last[0]:
            begin = row - row % _BLOCK
            if begin != self._block[0]:
                self._block = (begin, self._table.slice(begin, _BLOCK).rows(named=True))
            self._last = (row, self._template.render(self._block[1][row - begin]))
        return self._last[1]

    def prompts(self, rows: int) -> Iterator[Prompt]:
        """What all rows share, and the own part of the first ``rows``."""
        instrument, method = self._settings.instrument, self._settings.method
        for message in shared_body(instrument, method)["messages"]:
            yield Prompt(message["role"], message["content"], None)
        for row in range(min(rows, self._table.height)):
            for criterion in instrument.criteria or (None,):
                for message in row_messages(self.text_of(row), criterion, method):
                    yield Prompt(message["role"], message["content"], row)

    def audit(self, rows: int, folder: Path) -> list[Difference]:
        """How far ``rows`` scores, spread over the table, differ under changes that should not matter. ``folder`` is an
        empty one. Raises UserError."""
        chosen = spread_rows(self._table.height, min(rows, self._table.height))
        return audit(self._settings, chosen, self.text_of, folder, self._backend)

    def run(self, folder: Path) -> ScoredTable:
        """``folder`` keeps what has been done, for the next time. Raises UserError, and Interrupted where a signal
        ended it before."""
        settings = self._settings
        not_asked = Outcome(settings.method.name, error="it was not asked")
        found = [[not_asked] * len(self.names) for _ in range(self._table.height)]
        passes = Passes(folder, self._backend, settings, self.text_of)
        with self._backend.session():
            for question, outcome in passes.outcomes(self._questions(found), settings.method):
                found[question.row][question.criterion] = outcome
        batches = passes.batches
        if self._escalation is not None:
            batches = batches + self._escalate(self._escalation.backend, folder, found)
        ids = self._table[self._options.id_column].to_list() if self._options.id_column else range(len(found))
        reports = score_reports(ids, found, self.names, settings.instrument.scale, self._truths, self.text_of)
        return ScoredTable(with_scores(self._table, found, self.names), found, batches, reports)

    def page(self, title: str, scored: ScoredTable, prices: Prices) -> str:
        """The report, as HTML."""
        about = About(title, self._settings.instrument, self._backend.model, self._backend.place, time.time())
        return score_page(about, scored.reports, scored.batches, prices)

    def _questions(self, found: list[list[Outcome]]) -> Iterator[Question]:
        """Those that can be asked; ``found`` says of the others why not."""
        for row in range(self._table.height):
            length = len(self.text_of(row))
            if not 0 < length <= LONGEST_TEXT:
                error = f"its text is {length:,} characters long, {LONGEST_TEXT:,} at most" if length else "it is empty"
                found[row] = [Outcome(self._settings.method.name, error=error)] * len(self.names)
                continue
            for criterion in range(len(self.names)):
                yield Question(row, criterion)

    def _escalate(self, backend: ScoreBackend, folder: Path, found: list[list[Outcome]]) -> list[Batch]:
        condition = self._condition
        assert condition is not None
        unsure = [
            Question(row, criterion)
            for row, criterion in itertools.product(range(len(found)), range(len(self.names)))
            if found[row][criterion].score is not None and condition.holds(found[row][criterion])
        ]
        better = Passes(folder / "escalated", backend, self._settings, self.text_of)
        with backend.session():
            method = GENERATE if self._settings.method is GENERATE else _labels_method(backend)
            for question, outcome in better.outcomes(iter(unsure), method):
                before = found[question.row][question.criterion]
                found[question.row][question.criterion] = escalated(before, outcome, backend.model)
        return better.batches

    def _read_truths(self) -> list[float | None] | None:
        if self._options.truth is None:
            return None
        # What will be compared in the end must not fail only then.
        require("scipy.stats", "score")
        return truth_values(self._table, self._options.truth)

    def _row_template(self) -> RowTemplate:
        options, columns = self._options, self._table.columns
        if missing := [name for name in options.columns or () if name not in columns]:
            raise UserError(f"The table has no column '{missing[0]}'. It has: {', '.join(columns)}.")
        hidden = (options.id_column, options.truth)
        shown = [name for name in columns if name not in hidden] if options.columns is None else options.columns
        return RowTemplate(options.row, columns, shown)

    def _instrument(self, source: str, scale: Scale) -> Instrument:
        options = self._options
        values = {"scale": scale.text, "criteria": ", ".join(options.criteria)}
        rubric = render_rubric(source, self._table.columns, values)
        if not rubric:
            raise UserError("The rubric is empty.")
        examples = []
        if options.examples is not None:
            examples = read_examples(options.examples, self._template, self.names, options.criteria, scale)
        return Instrument(rubric, scale, tuple(options.criteria), examples, options.reason)

    def _check_escalation(self, escalation: Escalation | None) -> Condition | None:
        if escalation is None:
            return None
        condition = Condition(escalation.condition)
        condition.check(self._settings.method)
        return condition


def choose_method(options: ScoreOptions, backend: ScoreBackend) -> Method:
    """``options.method`` None: labels where the backend gives the probabilities of all of them. Raises UserError."""
    name = options.method
    if name not in (None, "labels", "generate"):
        raise UserError(f"There is no method '{name}': choose labels or generate.")
    if name == "generate" or (name is None and options.reason):
        return GENERATE
    if name == "labels":
        return _labels_method(backend)
    # The most probable tokens alone tell less: only for those who ask for it.
    return LABELS if backend.labels_method is LABELS else GENERATE


def _labels_method(backend: ScoreBackend) -> Method:
    """A small model whose answer is begun for it puts more of its probability on the labels."""
    method = backend.labels_method
    return TOP_LOGPROBS_BEGUN if method is TOP_LOGPROBS and backend.begins_answers else method


def escalated(before: Outcome, after: Outcome, model: str) -> Outcome:
    """Both scores are kept. Where the better model has none, the first one stands, and says what was wrong."""
    if after.score is None:
        return msgspec.structs.replace(before, error=f"{model} was asked, too: {after.error}")
    return msgspec.structs.replace(after, model=model, before=before.score)
