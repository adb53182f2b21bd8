"""Two models' scores of the same rows, compared. Pure; needs the extra ``score`` (SciPy)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gristmill.extras import require
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.statistics.kappa import kappa
from gristmill.scoring.statistics.mean_difference import mean_difference
from gristmill.scoring.statistics.prediction_powered import Estimate
from gristmill.scoring.statistics.proportion import proportion
from gristmill.scoring.statistics.rank_correlation import rank_correlation

#: Of fewer nothing is said.
LEAST_ROWS = 10


class Change(NamedTuple):
    """A row with both scores, ``a`` and ``b``. ``row`` from 0."""

    row: int
    id: object
    a: float
    b: float


class AtCut(NamedTuple):
    """Rows from a score of ``cut`` on are selected: by ``both``, by one only, or by neither. ``agreement`` is the share
    of rows on which the two agree; ``kappa`` that beyond chance, None where both say the same of every row."""

    cut: float
    both: int
    only_a: int
    only_b: int
    neither: int
    agreement: Estimate
    kappa: float | None


class ScoreComparison(NamedTuple):
    """Of one score. ``rows`` have it by both models; some by one only, or by neither. ``rank_correlation``: Spearman's,
    None where a model gives all rows the same score; ``difference``: the mean of B's score less A's; ``labels_differ``:
    the share of rows whose most probable label, or the one that was answered, is another. ``changes``: all ``rows``,
    the furthest apart first."""

    name: str
    rows: int
    only_a: int
    only_b: int
    neither: int
    rank_correlation: Estimate | None
    difference: Estimate
    labels_differ: Estimate
    at_cut: AtCut | None
    changes: list[Change]


class Scored(NamedTuple):
    """A row by both models."""

    row: int
    id: object
    a: Outcome
    b: Outcome


def compared(name: str, scored: Sequence[Scored], cut: float | None, confidence: float) -> ScoreComparison | None:
    """Of rows that are a random sample; None where fewer than LEAST_ROWS have both
    scores."""
    numpy = require("numpy", "score")
    changes, others = [], 0
    for each in scored:
        if each.a.score is not None and each.b.score is not None:
            changes.append(Change(each.row, each.id, each.a.score, each.b.score))
            others += each.a.label != each.b.label
    if len(changes) < LEAST_ROWS:
        return None
    a, b = numpy.array([(each.a, each.b) for each in changes]).T
    at_cut = None
    if cut is not None:
        chosen_a, chosen_b = a >= cut, b >= cut
        at_cut = AtCut(
            cut,
            int((chosen_a & chosen_b).sum()),
            int((chosen_a & ~chosen_b).sum()),
            int((chosen_b & ~chosen_a).sum()),
            int((~chosen_a & ~chosen_b).sum()),
            proportion(int((chosen_a == chosen_b).sum()), len(changes), confidence),
            kappa(chosen_a, chosen_b),
        )
    return ScoreComparison(
        name,
        len(changes),
        sum(each.a.score is not None and each.b.score is None for each in scored),
        sum(each.a.score is None and each.b.score is not None for each in scored),
        sum(each.a.score is None and each.b.score is None for each in scored),
        rank_correlation(a, b, confidence),
        mean_difference(a, b, confidence),
        proportion(others, len(changes), confidence),
        at_cut,
        sorted(changes, key=lambda each: (-abs(each.b - each.a), each.row)),
    )
