"""What guesses the judge's scores of all rows: a column of the table, a small model, or the words of the rows.

What is promised does not depend on it, only how many rows the judge is asked about.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import polars as pl

from gristmill.extras import require
from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.questionnaire import Questionnaire, labels_method
from gristmill.scoring.rank.judging import Judging
from gristmill.scoring.rank.text_proxy import train_text_proxy
from gristmill.scoring.table import number_values
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

#: Rows with a score, without which nothing is learnt from rows.
_LEAST_ROWS = 20


class Pilot(NamedTuple):
    """Rows that the judge has scored, and their scores, NaN where there is none."""

    rows: Sequence[int]
    scores: Sequence[float]

    def lesson(self, learnt_from: str, usable: Container[int] | None = None) -> list[tuple[int, float]]:
        """The rows with a score, and of them the ``usable`` ones. Raises UserError where they are too few to be learnt
        from, naming by what they would have been."""
        known = [
            (row, score)
            for row, score in zip(self.rows, self.scores, strict=True)
            if not math.isnan(score) and (usable is None or row in usable)
        ]
        if len(known) < _LEAST_ROWS:
            has = "a score" if usable is None else "a score and a vector"
            raise UserError(
                f"Only {len(known)} rows of the pilot have {has}: with fewer than {_LEAST_ROWS}, {learnt_from} teach "
                "nothing. Name another proxy with --proxy: a model, or a column of the table."
            )
        return known


class Proxy(Protocol):
    @property
    def told(self) -> str:
        """In words: "the column 'points'"."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What its guesses depend on, beside the table, the rubric and the pilot."""
        ...

    def prepare(self, folder: Path, rows: Sequence[int], every: bool, attempt: str) -> None:
        """What can be done before the judge starts: for the pilot's ``rows``, or for ``every`` row. ``folder`` keeps
        it; ``attempt`` is whose it is, see ``Judging``. Raises UserError and Interrupted."""
        ...

    def guesses(self, pilot: Pilot) -> Any:
        """An array with a number for each row of the table, higher where the judge's score probably is, NaN where there
        is none; those of the pilot's rows as if they had not been in it."""
        ...

    @property
    def batches(self) -> Sequence[Batch]:
        """What it took."""
        ...


class ColumnProxy:
    """A column of the table."""

    batches: Sequence[Batch] = ()

    def __init__(self, table: pl.DataFrame, column: str) -> None:
        """Raises UserError where it holds no numbers."""
        self.told = f"the column '{column}'"
        self.identity = {"column": column}
        self._values = number_values(table, column, "a proxy")
        if all(value is None for value in self._values):
            raise UserError(f"The column '{column}' has no number in any row, so that it cannot be the proxy.")

    def prepare(self, folder: Path, rows: Sequence[int], every: bool, attempt: str) -> None:
        pass

    def guesses(self, pilot: Pilot) -> Any:
        numpy = require("numpy", "score")
        return numpy.array([math.nan if value is None else value for value in self._values])


class ModelProxy:
    """A small model that is asked what the judge is, of every row. Its probabilities are taken as they are: it is
    cheap only where it is asked once."""

    @classmethod
    def beside(cls, judge: ScoreBackend, questionnaire: Questionnaire, backend: ScoreBackend) -> ModelProxy:
        """Raises UserError where both are the same."""
        if (backend.model, backend.place) == (judge.model, judge.place):
            raise UserError(
                f"The proxy {backend.model} is the judge itself, so that nothing would be saved: name a smaller model, "
                "a column of the table, or features."
            )
        return cls(questionnaire, backend)

    def __init__(self, questionnaire: Questionnaire, backend: ScoreBackend) -> None:
        """Raises UserError."""
        self.told = f"{backend.model} ({backend.place})"
        self.identity = {"model": backend.model, "place": backend.place}
        self._backend = backend
        method = labels_method(backend)
        self._questionnaire = questionnaire.asked_by(method, most_off_scale=1.0)
        self._rows = questionnaire.rows
        self._judging: Judging | None = None

    def prepare(self, folder: Path, rows: Sequence[int], every: bool, attempt: str) -> None:
        judging = self._judging = Judging(folder, self._backend, self._questionnaire, attempt)
        with self._backend.session():
            # What a plan has asked before is not asked again.
            judging.outcomes_of(rows)
            if every:
                judging.outcomes_of(range(self._rows))

    def guesses(self, pilot: Pilot) -> Any:
        numpy = require("numpy", "score")
        found = numpy.full(self._rows, numpy.nan)
        assert self._judging is not None
        for row, outcome in self._judging.outcomes.items():
            if outcome.score is not None:
                found[row] = outcome.score
        if numpy.isnan(found).all():
            error = next(iter(self._judging.outcomes.values())).error
            self._judging.forget()
            raise UserError(f"{self._backend.model} gave no row a score, so that it cannot be the proxy: {error}")
        return found

    @property
    def batches(self) -> Sequence[Batch]:
        return self._judging.batches if self._judging is not None else ()


class WordsProxy:
    """Ridge regression over the words of the rows, trained on the pilot."""

    told = "ridge regression over the words of the rows, trained on the pilot"
    batches: Sequence[Batch] = ()

    def __init__(self, questionnaire: Questionnaire) -> None:
        """Raises UserError where what it needs is not installed."""
        require("sklearn.feature_extraction.text", "score")
        self.identity = {"features": "words and characters"}
        self._questionnaire = questionnaire

    def prepare(self, folder: Path, rows: Sequence[int], every: bool, attempt: str) -> None:
        pass

    def guesses(self, pilot: Pilot) -> Any:
        numpy = require("numpy", "score")
        known = pilot.lesson("the words of the rows")
        rows, text_of = self._questionnaire.rows, self._questionnaire.text_of
        proxy = train_text_proxy([text_of(row) for row, _ in known], [score for _, score in known])
        found = proxy.guesses(map(text_of, range(rows)), rows)
        found[numpy.array([row for row, _ in known])] = proxy.held_out
        return found
