"""A table's scores: which rows are asked how, and what comes out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from msgspec import structs

from gristmill.scoring.condition import Condition
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.passes import Backend, Pass
from gristmill.scoring.prompt import GENERATE, Instrument, Method
from gristmill.scoring.questions import Question
from gristmill.scoring.template import RowTemplate
from gristmill.telemetry.log import get_logger
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

log = get_logger(__name__)

#: Longer texts of a row, and empty ones, are an error of the row: no model's context holds the first.
LONGEST_TEXT = 4 * 1024 * 1024
#: An answer that may differ from the one that was not valid.
_RETRY = {"temperature": 0.5, "seed": 1}
#: Answers after which it is told whether a model keeps to the scale, where there are more than so many to come.
_FIRST, _MANY = 50, 200
#: Rows taken out of the table at a time.
_BLOCK = 1024


class ScoreSettings(NamedTuple):
    """A row whose ``labels`` outcome has more than ``most_off_scale`` probability off the scale is asked again, to
    ``generate``."""

    instrument: Instrument
    method: Method
    most_off_scale: float = 0.5


class Escalation(NamedTuple):
    """Scores for which ``condition`` holds are asked of ``backend`` too."""

    condition: Condition
    backend: Backend
    method: Method


class Scores(NamedTuple):
    """``outcomes`` by row and criterion; the batches as they ended, in the order in which they ran."""

    outcomes: list[list[Outcome]]
    batches: list[Batch]


class ScoreJob:
    """Asks for every score of a table. Nothing but ``folder`` remembers what has been asked."""

    def __init__(self, table: pl.DataFrame, template: RowTemplate, settings: ScoreSettings) -> None:
        self._table = table
        self._template = template
        self._settings = settings
        self._criteria = max(len(settings.instrument.criteria), 1)
        self._block: tuple[int, list[dict[str, Any]]] = (-1, [])
        self._last = (-1, "")

    @property
    def rows(self) -> int:
        return self._table.height

    def text_of(self, row: int) -> str:
        """What is sent of the row. Raises UserError. Cheap for one row after another."""
        if row != self._last[0]:
            begin = row - row % _BLOCK
            if begin != self._block[0]:
                self._block = (begin, self._table.slice(begin, _BLOCK).rows(named=True))
            self._last = (row, self._template.render(self._block[1][row - begin]))
        return self._last[1]

    def run(self, folder: Path, backend: Backend, escalation: Escalation | None = None) -> Scores:
        """``folder`` keeps what has been done, for the next time. Raises UserError."""
        settings = self._settings
        not_asked = Outcome(settings.method.name, error="it was not asked")
        found = [[not_asked] * self._criteria for _ in range(self._table.height)]
        asking = Asking(folder, backend, settings, self.text_of)
        for question, outcome in asking.outcomes(self._questions(found), settings.method):
            found[question.row][question.criterion] = outcome
        if escalation is None:
            return Scores(found, asking.batches)
        unsure = [question for question, outcome in _each(found) if _is_unsure(outcome, escalation.condition)]
        better = Asking(folder / "escalated", escalation.backend, settings, self.text_of)
        for question, outcome in better.outcomes(iter(unsure), escalation.method):
            before = found[question.row][question.criterion]
            found[question.row][question.criterion] = escalated(before, outcome, escalation.backend.model)
        return Scores(found, asking.batches + better.batches)

    def _questions(self, found: list[list[Outcome]]) -> Iterator[Question]:
        """Those that can be asked; ``found`` says of the others why not."""
        for row in range(self._table.height):
            length = len(self.text_of(row))
            if not 0 < length <= LONGEST_TEXT:
                error = f"its text is {length:,} characters long, {LONGEST_TEXT:,} at most" if length else "it is empty"
                found[row] = [Outcome(self._settings.method.name, error=error)] * self._criteria
                continue
            for criterion in range(self._criteria):
                yield Question(row, criterion)


class Asking:
    """Asks one backend in at most four passes: the first questions, to see whether the model keeps to the scale;
    everything; what the labels cannot say, to generate; what was no valid answer, once more. Each is a batch of its
    own, and resumes."""

    def __init__(self, folder: Path, backend: Backend, settings: ScoreSettings, text_of: Callable[[int], str]) -> None:
        self._folder = folder
        self._backend = backend
        self._settings = settings
        self._text_of = text_of
        self.batches: list[Batch] = []

    def outcomes(self, questions: Iterator[Question], method: Method) -> Iterable[tuple[Question, Outcome]]:
        """Of each question that was answered or failed, once. Raises UserError where most of the first answers are off
        the scale: all the others would be asked twice."""
        found: dict[Question, Outcome] = {}
        first = list(itertools.islice(questions, _MANY + 1))
        if not first:
            return found.items()
        if len(first) > _MANY and method is not GENERATE:
            found.update(self._pass("0-first", first[:_FIRST], method))
            self._check_scale(found)
            first = first[_FIRST:]
        found.update(self._pass("1", itertools.chain(first, questions), method))
        # In the order of the rows: asking the same again must be the same batch.
        off_scale = sorted(each for each, outcome in found.items() if self._is_off_scale(outcome))
        if off_scale:
            if len(off_scale) > len(found) / 2:
                log.warning(
                    "most answers are off the scale and asked for once more, written out",
                    answers=len(found), off_scale=len(off_scale), model=self._backend.model,
                )  # fmt: skip
            for question, outcome in self._pass("2-off-scale", off_scale, GENERATE):
                before = found[question]
                found[question] = structs.replace(outcome, entropy=before.entropy, off_scale=before.off_scale)
        invalid = sorted(each for each, outcome in found.items() if outcome.invalid)
        if invalid:
            found.update(self._pass("3-again", invalid, GENERATE, _RETRY))
        return found.items()

    def _pass(
        self, name: str, questions: Iterable[Question], method: Method, changes: dict[str, Any] | None = None
    ) -> Iterator[tuple[Question, Outcome]]:
        one = Pass(name, method, self._backend, changes or {})
        batch, outcomes = one.outcomes(self._folder, questions, self._text_of, self._settings.instrument)
        self.batches.append(batch)
        return outcomes

    def _check_scale(self, found: dict[Question, Outcome]) -> None:
        off_scale = sum(self._is_off_scale(outcome) for outcome in found.values())
        if off_scale > len(found) / 2:
            raise UserError(
                f"Of the first {len(found)} answers of {self._backend.model}, {off_scale} are off the scale, so that "
                "nothing more was asked: a model that was not tuned to follow instructions answers like that. Use one "
                "that was, show it what is wanted with --examples, or have the scores written out with --method "
                "generate. With --most-off-scale 1 the labels' probabilities are taken as they are."
            )

    def _is_off_scale(self, outcome: Outcome) -> bool:
        return outcome.off_scale is not None and outcome.off_scale > self._settings.most_off_scale


def escalated(before: Outcome, after: Outcome, model: str) -> Outcome:
    """Both scores are kept. Where the better model has none, the first one stands, and says what was wrong."""
    if after.score is None:
        return structs.replace(before, error=f"{model} was asked, too: {after.error}")
    return structs.replace(after, model=model, before=before.score)


def _each(found: list[list[Outcome]]) -> Iterator[tuple[Question, Outcome]]:
    for row, outcomes in enumerate(found):
        for criterion, outcome in enumerate(outcomes):
            yield Question(row, criterion), outcome


def _is_unsure(outcome: Outcome, condition: Condition) -> bool:
    return outcome.score is not None and condition.holds(outcome)


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
    "reason": pl.String, "model": pl.String, "before": pl.Float64, "error": pl.String,
}  # fmt: skip
