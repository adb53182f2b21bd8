"""Is the instrument fair? A few rows measured again under changes that should not change their scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.passes import Passes, PassSettings
from gristmill.scoring.prompt import GENERATE, Wording
from gristmill.scoring.questions import Question
from gristmill.scoring.spearman import spearman

#: Rows that are measured each alone, in a batch of their own.
_ALONE = 3


class Variant(NamedTuple):
    """A change to what is asked; ``rows`` in the order in which they are asked."""

    name: str
    settings: PassSettings
    rows: Sequence[int]


class Difference(NamedTuple):
    """Between the scores under a change and the first ones: mean and largest absolute difference, rank correlation
    (None where no two rows differ). ``rows`` have a score both times; ``missing`` only once."""

    name: str
    rows: int
    missing: int
    mean: float | None
    largest: float | None
    spearman: float | None


def variants(settings: PassSettings, rows: Sequence[int]) -> list[Variant]:
    """The changes; the first entry is none."""
    backwards = list(reversed(rows))
    found = [
        Variant("first", settings, rows),
        Variant("the same again", settings, rows),
        Variant("rows in reverse order", settings, backwards),
        Variant("scale told from high to low", _worded(settings, Wording(reversed_scale=True)), rows),
        Variant("instruction in other words", _worded(settings, Wording(paraphrased=True)), rows),
    ]
    if settings.method is not GENERATE:
        found.append(Variant("method generate", settings._replace(method=GENERATE), rows))
    found += [Variant(f"row {row + 1} alone", settings, [row]) for row in rows[:_ALONE]]
    return found


def audit(
    settings: PassSettings, rows: Sequence[int], text_of: Callable[[int], str], folder: Path, backend: ScoreBackend
) -> list[Difference]:
    """A difference for each change. Raises UserError."""
    criteria = max(len(settings.instrument.criteria), 1)
    first: dict[Question, Outcome] = {}
    differences = []
    for number, variant in enumerate(variants(settings, rows)):
        passes = Passes(folder / str(number), backend, variant.settings, text_of)
        asked = (Question(row, criterion) for row in variant.rows for criterion in range(criteria))
        # An engine for each: one that has computed a row already would be compared with itself.
        with backend.session():
            found = dict(passes.outcomes(asked, variant.settings.method))
        if number == 0:
            first = found
        else:
            differences.append(difference(variant.name, first, found))
    return differences


def difference(name: str, first: dict[Question, Outcome], other: dict[Question, Outcome]) -> Difference:
    """Of the questions that ``other`` has."""
    pairs = [(first[question].score, outcome.score) for question, outcome in other.items()]
    both = [(one, two) for one, two in pairs if one is not None and two is not None]
    missing = sum((one is None) != (two is None) for one, two in pairs)
    if not both:
        return Difference(name, 0, missing, None, None, None)
    gaps = [abs(one - two) for one, two in both]
    return Difference(
        name, len(both), missing, math.fsum(gaps) / len(gaps), max(gaps), spearman(*zip(*both, strict=True))
    )


def spread_rows(rows: int, count: int) -> list[int]:
    """``count`` of the rows, evenly spread."""
    chosen = min(count, rows)
    return [int((place + 0.5) * rows / chosen) for place in range(chosen)]


def _worded(settings: PassSettings, wording: Wording) -> PassSettings:
    return settings._replace(instrument=settings.instrument._replace(wording=wording))
