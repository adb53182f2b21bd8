"""What is asked about each row of a table, and how: everything that is the same for a scoring and a ranking, checked
before an engine runs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl

from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.calibrated_table import CALIBRATED_FIELDS, TruthUse, check_truth_use
from gristmill.scoring.columns import check_names
from gristmill.scoring.examples import read_examples
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.passes import PassSettings
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
from gristmill.scoring.scale import Scale
from gristmill.scoring.table import check_ids
from gristmill.scoring.template import RowTemplate, render_rubric
from gristmill.user_error import UserError

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
    ``generate``. ``truth_use``: what the right scores are used for, beyond being compared with."""

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
    truth_use: TruthUse = TruthUse()

    @property
    def names(self) -> list[str]:
        """Of the scores."""
        return list(self.criteria) or [self.name]


class Prompt(NamedTuple):
    """A message as it is sent; ``row`` from 0, None for what all rows share."""

    role: str
    text: str
    row: int | None


class Questionnaire:
    """The questions about the rows of one table, for one backend."""

    def __init__(
        self, table: pl.DataFrame, rubric: str, scale: Scale, options: ScoreOptions, backend: ScoreBackend
    ) -> None:
        """Raises UserError for whatever cannot work."""
        self.names = options.names
        self._table = table
        self._options = options
        method = choose_method(options, backend)
        if len(set(self.names)) < len(self.names):
            raise UserError(f"A criterion is named twice: {', '.join(self.names)}.")
        if options.reason and method is not GENERATE:
            raise UserError("The method labels gives no reasons: use the method generate for them.")
        if options.id_column is not None:
            check_ids(table, options.id_column)
        check_names(table, self.names, CALIBRATED_FIELDS if options.truth is not None else ())
        check_truth_use(table, options.truth, options.truth_use)
        if options.truth_use.wanted and len(self.names) > 1:
            raise UserError("Rows whose right score is wanted are chosen by one score: leave out --criteria.")
        self.template = self._row_template()
        self.settings = PassSettings(self._instrument(rubric, scale), method, options.most_off_scale)
        self._block: tuple[int, list[dict[str, Any]]] = (-1, [])
        self._last = (-1, "")

    @property
    def id_column(self) -> str | None:
        return self._options.id_column

    @property
    def ids(self) -> Sequence[object]:
        """Of the rows: those of the id's column, or their numbers from 0."""
        column = self._options.id_column
        return self._table[column].to_list() if column is not None else range(self._table.height)

    @property
    def rows(self) -> int:
        """How many the table has."""
        return self._table.height

    def asked_by(self, method: Method, most_off_scale: float) -> Questionnaire:
        """The same questions, asked of another model in its way."""
        other = copy.copy(self)
        other.settings = self.settings._replace(method=method, most_off_scale=most_off_scale)
        return other

    def text_of(self, row: int) -> str:
        """What is sent of the row. Raises UserError. Cheap for one row after another."""
        if row != self._last[0]:
            begin = row - row % _BLOCK
            if begin != self._block[0]:
                self._block = (begin, self._table.slice(begin, _BLOCK).rows(named=True))
            self._last = (row, self.template.render(self._block[1][row - begin]))
        return self._last[1]

    def prompts(self, rows: int) -> Iterator[Prompt]:
        """What all rows share, and the own part of the first ``rows``."""
        instrument, method = self.settings.instrument, self.settings.method
        for message in shared_body(instrument, method)["messages"]:
            yield Prompt(message["role"], message["content"], None)
        for row in range(min(rows, self._table.height)):
            for criterion in instrument.criteria or (None,):
                for message in row_messages(self.text_of(row), criterion, method):
                    yield Prompt(message["role"], message["content"], row)

    def questions(self, rows: Iterable[int], unasked: dict[int, Outcome]) -> Iterator[Question]:
        """Those about ``rows`` that can be asked; ``unasked`` gets the outcome of each row that cannot, as they are
        met."""
        for row in rows:
            if (error := self.why_not(row)) is not None:
                unasked[row] = Outcome(self.settings.method.name, error=error)
                continue
            for criterion in range(len(self.names)):
                yield Question(row, criterion)

    def why_not(self, row: int) -> str | None:
        """Why no model can be asked about the row; None where one can."""
        length = len(self.text_of(row))
        if 0 < length <= LONGEST_TEXT:
            return None
        return f"its text is {length:,} characters long, {LONGEST_TEXT:,} at most" if length else "it is empty"

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
            examples = read_examples(options.examples, self.template, self.names, options.criteria, scale)
        return Instrument(rubric, scale, tuple(options.criteria), examples, options.reason)


def choose_method(options: ScoreOptions, backend: ScoreBackend) -> Method:
    """``options.method`` None: labels where the backend gives the probabilities of all of them. Raises UserError."""
    name = options.method
    if name not in (None, "labels", "generate"):
        raise UserError(f"There is no method '{name}': choose labels or generate.")
    if name == "generate" or (name is None and options.reason):
        return GENERATE
    if name == "labels":
        return labels_method(backend)
    # The most probable tokens alone tell less: only for those who ask for it.
    return LABELS if backend.labels_method is LABELS else GENERATE


def labels_method(backend: ScoreBackend) -> Method:
    """A small model whose answer is begun for it puts more of its probability on the labels."""
    method = backend.labels_method
    return TOP_LOGPROBS_BEGUN if method is TOP_LOGPROBS and backend.begins_answers else method
