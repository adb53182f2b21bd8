"""A table's scores: which rows are asked how, and what comes out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from gristmill.scoring.outcome import Outcome
from gristmill.scoring.passes import Backend, Pass
from gristmill.scoring.prompt import GENERATE, LABELS, Instrument, Method
from gristmill.scoring.questions import Question
from gristmill.scoring.template import RowTemplate
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

#: Longer texts of a row are an error of the row: no model's context holds them.
LONGEST_TEXT = 4 * 1024 * 1024
#: An answer that may differ from the one that was not valid.
_RETRY = {"temperature": 0.5, "seed": 1}


#: Rows taken out of the table at a time.
_BLOCK = 1024


class ScoreSettings(NamedTuple):
    """A row whose ``labels`` outcome has more than ``most_off_scale`` probability off the scale is asked again, to
    ``generate``."""

    instrument: Instrument
    method: Method
    most_off_scale: float = 0.5


class Scores(NamedTuple):
    """``outcomes`` by row and criterion; the batches as they ended, in the order in which they ran."""

    outcomes: list[list[Outcome]]
    batches: list[Batch]


class ScoreJob:
    """Asks for every score of a table in at most three passes: everything; what the labels cannot say, to generate;
    what was no valid answer, once more. Each is a batch of its own, and resumes."""

    def __init__(self, table: pl.DataFrame, template: RowTemplate, settings: ScoreSettings) -> None:
        self._table = table
        self._template = template
        self._settings = settings
        self._criteria = max(len(settings.instrument.criteria), 1)
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

    def run(self, folder: Path, backend: Backend) -> Scores:
        """``folder`` keeps what has been done, for the next time. Raises UserError."""
        settings = self._settings
        not_asked = Outcome(settings.method.name, error="it was not asked")
        found = [[not_asked] * self._criteria for _ in range(self._table.height)]
        batches: list[Batch] = []

        def ask(one: Pass, asked: Iterable[Question]) -> None:
            batch, outcomes = one.outcomes(folder, asked, self.text_of, settings.instrument)
            batches.append(batch)
            for question, outcome in outcomes:
                found[question.row][question.criterion] = outcome

        questions = self._questions(found)
        if (first := next(questions, None)) is not None:
            ask(Pass("1", settings.method, backend), itertools.chain([first], questions))
        if settings.method is LABELS and (unsure := self._where(found, self._off_scale)):
            ask(Pass("2-off-scale", GENERATE, backend), unsure)
        if invalid := self._where(found, _is_invalid):
            ask(Pass("3-again", GENERATE, backend, _RETRY), invalid)
        return Scores(found, batches)

    def _questions(self, found: list[list[Outcome]]) -> Iterator[Question]:
        """Those that can be asked; ``found`` says of the others why not."""
        for row in range(self._table.height):
            length = len(self.text_of(row))
            if length > LONGEST_TEXT:
                error = f"its text is {length:,} characters long, {LONGEST_TEXT:,} at most"
                found[row] = [Outcome(self._settings.method.name, error=error)] * self._criteria
                continue
            for criterion in range(self._criteria):
                yield Question(row, criterion)

    def _off_scale(self, outcome: Outcome) -> bool:
        return outcome.off_scale is not None and outcome.off_scale > self._settings.most_off_scale

    def _where(self, found: list[list[Outcome]], condition: Callable[[Outcome], bool]) -> list[Question]:
        return [
            Question(row, criterion)
            for row, outcomes in enumerate(found)
            for criterion, outcome in enumerate(outcomes)
            if condition(outcome)
        ]


def _is_invalid(outcome: Outcome) -> bool:
    return outcome.invalid


def with_scores(table: pl.DataFrame, scores: Scores, names: Sequence[str]) -> pl.DataFrame:
    """The table with the columns of each score behind its own: the name itself, name_label, and so on. Columns that
    would be empty throughout are left out, but for the score and its error. Raises UserError where a name is taken."""
    added: dict[str, pl.Series] = {}
    for place, name in enumerate(names):
        column = [outcomes[place] for outcomes in scores.outcomes]
        for field, kind in _COLUMNS.items():
            full = name if field == "score" else f"{name}_{field}"
            series = pl.Series(full, [getattr(outcome, field) for outcome in column], dtype=kind)
            if field in ("score", "error") or series.null_count() < len(series):
                added[full] = series
    return table.with_columns(*added.values())


def check_names(table: pl.DataFrame, names: Sequence[str]) -> None:
    """Raises UserError where a column of the scores is there already."""
    for name in names:
        for field in _COLUMNS:
            full = name if field == "score" else f"{name}_{field}"
            if full in table.columns:
                raise UserError(f"The table has a column '{full}' already: name the scores otherwise, with --name.")


_COLUMNS = {
    "score": pl.Float64, "label": pl.String, "entropy": pl.Float64, "off_scale": pl.Float64, "method": pl.String,
    "reason": pl.String, "error": pl.String,
}  # fmt: skip
