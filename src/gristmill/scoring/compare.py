"""What quantization or another model does to scores: some rows scored by two models, and compared."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from gristmill.extras import require
from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.calibration import Aims, check_aims
from gristmill.scoring.comparison import LEAST_ROWS, ScoreComparison, Scored, compared
from gristmill.scoring.computation import Computation, computations_in
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.passes import Passes
from gristmill.scoring.prompt import Instrument
from gristmill.scoring.questionnaire import Questionnaire, ScoreOptions, choose_method
from gristmill.scoring.scale import Scale
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch


class CompareWish(NamedTuple):
    """How many random ``rows``; from which score on a row is selected (None: no matter); of the intervals."""

    rows: int = 100
    cut: float | None = None
    confidence: float = 0.9


class Side(NamedTuple):
    """A model that was compared. ``method``: how it was asked; ``batches`` as they ended."""

    model: str
    place: str
    method: str
    computed: list[Computation]
    batches: list[Batch]


class Comparison(NamedTuple):
    """``rows`` of the table's ``of`` rows were scored by both ``a`` and ``b``."""

    a: Side
    b: Side
    rows: int
    of: int
    confidence: float
    instrument: Instrument
    scores: list[ScoreComparison]


class Comparing:
    """Checks everything that can be before an engine runs, then asks one model and after it the other."""

    def __init__(
        self,
        table: pl.DataFrame,
        rubric: str,
        scale: Scale,
        options: ScoreOptions,
        backends: tuple[ScoreBackend, ScoreBackend],
        wish: CompareWish,
    ) -> None:
        """Raises UserError."""
        # What will be compared in the end must not fail only then.
        require("scipy.stats", "score")
        check_aims(Aims(wish.confidence))
        least, most = scale.values[0], scale.values[-1]
        if wish.cut is not None and not least < wish.cut <= most:
            raise UserError(
                f"A cut of {wish.cut:g} tells no rows of the scale apart: choose one above {least:g}, up to {most:g}."
            )
        count = min(wish.rows, table.height)
        if count < LEAST_ROWS:
            few = f"the table has {table.height:,}" if table.height < wish.rows else f"--rows is {wish.rows:,}"
            raise UserError(f"A comparison takes {LEAST_ROWS} rows at least: {few}.")
        self._wish = wish
        self._backends = backends
        self._questionnaire = Questionnaire(table, rubric, scale, options, backends[0])
        self._options = options
        # That a model is not there is told before the other one has worked.
        for backend in backends:
            _ = backend.model
        # The same rows whatever they are compared for.
        self._chosen = sorted(random.Random(0).sample(range(table.height), count))

    def run(self, folder: Path) -> Comparison:
        """``folder`` is an empty one. Raises UserError, and Interrupted where a signal ended it before."""
        sides, found = [], []
        for name, backend in zip("ab", self._backends, strict=True):
            # One engine after the other: they are not in memory at the same time.
            with backend.session():
                side, outcomes = self._ask(backend, folder / name)
            sides.append(side)
            found.append(outcomes)
        return self._compared(sides, found)

    def _ask(self, backend: ScoreBackend, folder: Path) -> tuple[Side, dict[tuple[int, int], Outcome]]:
        method = choose_method(self._options, backend)
        asked = self._questionnaire.asked_by(method, self._options.most_off_scale)
        unasked: dict[int, Outcome] = {}
        passes = Passes(folder, backend, asked.settings, asked.text_of)
        answers = passes.outcomes(asked.questions(self._chosen, unasked), method)
        outcomes = {(question.row, question.criterion): outcome for question, outcome in answers}
        for row, outcome in unasked.items():
            outcomes |= {(row, criterion): outcome for criterion in range(len(asked.names))}
        return Side(backend.model, backend.place, method.name, computations_in(folder), passes.batches), outcomes

    def _compared(self, sides: Sequence[Side], found: Sequence[dict[tuple[int, int], Outcome]]) -> Comparison:
        questionnaire, wish = self._questionnaire, self._wish
        a, b = sides
        scores = []
        for criterion, name in enumerate(questionnaire.names):
            pairs = [
                Scored(row, questionnaire.ids[row], *(_outcome(each, row, criterion) for each in found))
                for row in self._chosen
            ]
            score = compared(name, pairs, wish.cut, wish.confidence)
            if score is None:
                raise UserError(_nothing(name, a, b, pairs))
            scores.append(score)
        instrument = questionnaire.settings.instrument
        return Comparison(a, b, len(self._chosen), questionnaire.rows, wish.confidence, instrument, scores)


def _outcome(found: dict[tuple[int, int], Outcome], row: int, criterion: int) -> Outcome:
    return found.get((row, criterion), Outcome("labels", error="it was not asked"))


def _nothing(name: str, a: Side, b: Side, pairs: Sequence[Scored]) -> str:
    errors = [outcome.error for each in pairs for outcome in (each.a, each.b) if outcome.score is None]
    by_a, by_b = (
        sum(each.score is not None for each in side) for side in zip(*(pair[2:] for pair in pairs), strict=True)
    )
    why = f" The first that has none: {errors[0]}" if errors else ""
    return (
        f"There is nothing to compare: of {len(pairs):,} rows, {a.model} gave {by_a:,} a {name} and {b.model} "
        f"{by_b:,}, fewer than {LEAST_ROWS} have both.{why}"
    )
