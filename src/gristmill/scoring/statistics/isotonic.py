"""A score's meaning on the scale of the truth: isotonic regression, cross-fitted. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gristmill.extras import require

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ScoreMap(Protocol):
    """From scores to what is expected there."""

    def __call__(self, scores: NDArray[Any], /) -> NDArray[Any]: ...


#: Fits a map to scores, truths and weights.
FitMap = Callable[["NDArray[Any]", "NDArray[Any]", "NDArray[Any]"], ScoreMap]

#: Parts of the labelled rows; each is judged by a map that was fitted on the others.
FOLDS = 10


class Interpolated(NamedTuple):
    """Linear between ``scores`` (rising), level beyond them."""

    scores: NDArray[Any]
    values: NDArray[Any]

    def __call__(self, scores: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = require("numpy", "score").interp(scores, self.scores, self.values)
        return found


class CrossFit(NamedTuple):
    """``fold`` of each labelled row; ``maps``: one a fold, fitted on the labelled rows of the others."""

    fold: NDArray[Any]
    maps: list[ScoreMap]

    def of_labelled(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Of the labelled rows, each by the map that has not seen it."""
        numpy = require("numpy", "score")
        found: NDArray[Any] = numpy.empty(len(scores))
        for number, each in enumerate(self.maps):
            mine = self.fold == number
            found[mine] = each(scores[mine])
        return found

    def of_others(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Of rows that no map has seen: the mean of all maps."""
        numpy = require("numpy", "score")
        found: NDArray[Any] = numpy.mean([each(scores) for each in self.maps], axis=0)
        return found


def fit_isotonic(scores: NDArray[Any], truths: NDArray[Any], weights: NDArray[Any]) -> Interpolated:
    """The rising map with the least weighted sum of squared errors (pool adjacent violators). Equal scores are one
    point, at their weighted mean truth."""
    numpy, optimize = require("numpy", "score"), require("scipy.optimize", "score")
    points, place = numpy.unique(scores, return_inverse=True)
    weight = numpy.bincount(place, weights)
    mean = numpy.bincount(place, weights * truths) / weight
    values = optimize.isotonic_regression(mean, weights=weight).x
    return Interpolated(points, values)


def cross_fit(
    scores: NDArray[Any],
    truths: NDArray[Any],
    weights: NDArray[Any],
    draw: Any,
    fit: FitMap,
) -> CrossFit:
    """Of labelled rows (2 at least), in random parts of equal size by ``draw``, a NumPy generator."""
    numpy = require("numpy", "score")
    count = min(FOLDS, len(scores))
    fold = draw.permutation(len(scores)) % count
    maps = []
    for number in range(count):
        others = fold != number
        maps.append(fit(scores[others], truths[others], weights[others]))
    return CrossFit(numpy.asarray(fold), maps)
