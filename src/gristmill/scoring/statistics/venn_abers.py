"""A score as the probability of a truth that is 0 or 1: Venn-Abers prediction (Vovk, Petej and Fedorova 2015). Pure.

Isotonic regression alone says 0 or 1 of the lowest and highest scores, whatever few rows it has seen there. Here the
row that is judged takes part with both truths it can have: the two answers it gets lie around its probability, further
apart where less is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from gristmill.extras import require
from gristmill.scoring.statistics.isotonic import FitMap, ScoreMap, fit_isotonic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Different scores up to which the two differ enough to be worth it; it takes time by their number.
_MOST_POINTS = 2_000
#: The end of a stack.
_NONE = -1


class ProbabilityMap(NamedTuple):
    """Never falls. ``at`` each of the rising ``scores``, and ``between`` them: before the first, before the second, and
    so on, behind the last."""

    scores: NDArray[Any]
    at: NDArray[Any]
    between: NDArray[Any]

    def __call__(self, scores: NDArray[Any]) -> NDArray[Any]:
        numpy = require("numpy", "score")
        place = numpy.searchsorted(self.scores, scores)
        met = self.scores[numpy.minimum(place, len(self.scores) - 1)] == scores
        found: NDArray[Any] = numpy.where(met, self.at[numpy.minimum(place, len(self.at) - 1)], self.between[place])
        return found


def fit_venn_abers(scores: NDArray[Any], truths: NDArray[Any], weights: NDArray[Any]) -> ScoreMap:
    """The two probabilities p0 and p1 of a row, fitted with it as a 0 and as a 1, as the one with the least regret by
    log loss: p1 / (1 - p0 + p1). The row weighs as much as the mean one."""
    numpy = require("numpy", "score")
    points, place = numpy.unique(scores, return_inverse=True)
    if len(points) > _MOST_POINTS:
        return fit_isotonic(scores, truths, weights)
    weight = numpy.bincount(place, weights).tolist()
    total = numpy.bincount(place, weights * truths).tolist()
    blocks = _Blocks()
    below = list(blocks.stacks(total, weight, rising=True))
    above = list(blocks.stacks(total[::-1], weight[::-1], rising=False))[::-1]
    own = float(weights.mean())
    at = [
        _together(
            *(blocks.mean_with(below[i], above[i + 1], total[i] + truth * own, weight[i] + own) for truth in (0, 1))
        )
        for i in range(len(points))
    ]
    between = [
        _together(*(blocks.mean_with(below[i], above[i], truth * own, own) for truth in (0, 1)))
        for i in range(len(points) + 1)
    ]
    return ProbabilityMap(points, numpy.array(at), numpy.array(between))


def map_fitter(binary: bool) -> FitMap:
    """For truths that are 0 or 1, and for others: what Venn-Abers does for more truths than two is worse where the
    truths of high or low scores are all alike (benchmarks/calibration, choice)."""
    return fit_venn_abers if binary else fit_isotonic


def _together(lower: float, upper: float) -> float:
    return upper / (1 - lower + upper)


class _Blocks:
    """Pools of adjacent points (pool adjacent violators), as stacks that share what is below their tops: one for every
    number of points from one end, so that a point in between costs a few steps instead of a fit."""

    def __init__(self) -> None:
        self._total: list[float] = []
        self._weight: list[float] = []
        self._below: list[int] = []

    def stacks(self, totals: Sequence[float], weights: Sequence[float], rising: bool) -> Iterator[int]:
        """The top of the stack of the first 0, 1, ... points, whose means rise from one block to the next, or fall."""
        top = _NONE
        yield top
        for total, weight in zip(totals, weights, strict=True):
            while top != _NONE and self._violates(top, total / weight, rising):
                total, weight, top = total + self._total[top], weight + self._weight[top], self._below[top]
            self._total.append(total)
            self._weight.append(weight)
            self._below.append(top)
            top = len(self._total) - 1
            yield top

    def mean_with(self, below: int, above: int, total: float, weight: float) -> float:
        """Of the block that a point between two stacks ends in."""
        while True:
            if below != _NONE and self._violates(below, total / weight, True):
                total, weight, below = total + self._total[below], weight + self._weight[below], self._below[below]
            elif above != _NONE and self._violates(above, total / weight, False):
                total, weight, above = total + self._total[above], weight + self._weight[above], self._below[above]
            else:
                return total / weight

    def _violates(self, block: int, mean: float, rising: bool) -> bool:
        own = self._total[block] / self._weight[block]
        return own > mean if rising else own < mean
