"""How far from its calibrated score a row's truth may be: conformal prediction intervals. Pure.

What is guaranteed holds for a row that is drawn at random from the table, over the draw of the labelled rows: of all
rows' intervals, the promised share holds its truth. It holds for no single row, score or group (marginal coverage).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gristmill.extras import require
from gristmill.scoring.statistics.isotonic import CrossFit, Interpolated, ScoreMap, fit_isotonic
from gristmill.scoring.statistics.venn_abers import fit_venn_abers, map_fitter

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: From so many labelled rows on, half of them are enough to fit on.
SPLIT_ROWS = 200
#: Of the labelled rows, so many around each one tell how large errors are there: a share, and a number at the least.
_NEAR, _LEAST_NEAR = 0.2, 50
#: How small errors are held to be anywhere, as a share of their mean over all.
_LEAST_SPREAD = 0.25
#: Numbers held at a time.
_BLOCK = 2_000_000


class Guarantee(NamedTuple):
    """``least``: the coverage that is proven, whatever the data; ``typical``: what it is nearly always. ``method`` in
    the field's words."""

    method: str
    least: float
    typical: float


class Intervals(NamedTuple):
    """Of every row; infinite where the labelled rows are too few, of those that are as rare among them as the row."""

    low: NDArray[Any]
    high: NDArray[Any]
    guarantee: Guarantee


def intervals(
    scores: NDArray[Any],
    labelled: NDArray[Any],
    truths: NDArray[Any],
    weights: NDArray[Any],
    fit: CrossFit,
    confidence: float,
    draw: Any,
    binary: bool = False,
) -> Intervals:
    """``labelled``: rows by number; ``truths`` theirs; ``weights`` of every row of the table, 1 over the probability
    with which a row like it is labelled; ``fit`` of the labelled rows. A labelled row's own truth has no part in its
    interval. ``binary``: truths are 0 or 1, predicted as probabilities.

    Many labelled rows: split conformal with errors in units of how large they are near the score (Lei et al. 2018);
    few: CV+ (Barber et al. 2021). Unequal weights: weighted as for a covariate shift that is known (Tibshirani et al.
    2019; Prinster et al. 2022).
    """
    if len(labelled) >= SPLIT_ROWS:
        return _split(scores, labelled, truths, weights, confidence, draw, binary)
    return _cross(scores, labelled, truths, weights, fit, confidence, binary)


class _Half(NamedTuple):
    """A map and how large errors are at a score, both fitted on some of the labelled rows."""

    centre: ScoreMap
    spread: ScoreMap


def _split(
    scores: NDArray[Any],
    labelled: NDArray[Any],
    truths: NDArray[Any],
    weights: NDArray[Any],
    confidence: float,
    draw: Any,
    binary: bool,
) -> Intervals:
    numpy = require("numpy", "score")
    halves = numpy.array_split(draw.permutation(len(labelled)), 2)
    low, high = numpy.empty(len(scores)), numpy.empty(len(scores))
    others = numpy.ones(len(scores), bool)
    others[labelled] = False
    for fitted, held in (halves, halves[::-1]):
        rows = labelled[held]
        half = _fit_half(scores[labelled[fitted]], truths[fitted], weights[labelled[fitted]], binary)
        errors = abs(truths[held] - half.centre(scores[rows])) / half.spread(scores[rows])
        # A row that is held out is judged by the errors of the others that are. Rows without a truth: by one half.
        judged = numpy.concatenate([rows, numpy.flatnonzero(others)]) if held is halves[1] else rows
        own = numpy.concatenate([numpy.arange(len(rows)), numpy.full(len(judged) - len(rows), -1)])
        reach = _reaches(errors, weights[rows], weights[judged], own, confidence) * half.spread(scores[judged])
        centre = half.centre(scores[judged])
        low[judged], high[judged] = centre - reach, centre + reach
    return Intervals(low, high, Guarantee("split conformal", confidence, confidence))


def _fit_half(scores: NDArray[Any], truths: NDArray[Any], weights: NDArray[Any], binary: bool) -> _Half:
    numpy = require("numpy", "score")
    if binary:
        return _Half(fit_venn_abers(scores, truths, weights), Interpolated(scores[:1], numpy.ones(1)))
    centre = fit_isotonic(scores, truths, weights)
    order = numpy.argsort(scores, kind="stable")
    points, errors = scores[order], abs(truths - centre(scores))[order]
    near = min(max(int(_NEAR * len(points)), _LEAST_NEAR), len(points))
    sums = numpy.concatenate([[0.0], numpy.cumsum(errors)])
    begin = numpy.clip(numpy.arange(len(points)) - near // 2, 0, len(points) - near)
    around = (sums[begin + near] - sums[begin]) / near
    # Equal scores have one spread.
    distinct, place = numpy.unique(points, return_inverse=True)
    spread = numpy.bincount(place, around) / numpy.bincount(place)
    least = _LEAST_SPREAD * (float(errors.mean()) or 1.0)
    return _Half(centre, Interpolated(distinct, numpy.maximum(spread, least)))


def _reaches(
    errors: NDArray[Any], weights: NDArray[Any], judged: NDArray[Any], own: NDArray[Any], confidence: float
) -> NDArray[Any]:
    """The quantile of ``errors`` by their ``weights`` for each row of the weights ``judged``; a row that is itself
    among the errors, at place ``own`` (else -1), without its own."""
    numpy = require("numpy", "score")
    order = numpy.argsort(errors)
    ends, sums = numpy.append(errors[order], math.inf), numpy.cumsum(weights[order])
    rank = numpy.empty(len(order), int)
    rank[order] = numpy.arange(len(order))
    total = sums[-1]
    found: NDArray[Any] = numpy.empty(len(judged))
    outside = own < 0
    needed = confidence * (total + judged[outside])
    found[outside] = ends[numpy.searchsorted(sums, needed * (1 - 1e-12))]
    # Without its own, the row's own weight stands at infinity instead: the sum of all stays.
    inside = ~outside
    needed = confidence * total
    first = numpy.searchsorted(sums, needed * (1 - 1e-12))
    behind = numpy.searchsorted(sums, (needed + judged[inside]) * (1 - 1e-12))
    found[inside] = numpy.where(rank[own[inside]] > first, ends[first], ends[behind])
    return found


def _cross(
    scores: NDArray[Any],
    labelled: NDArray[Any],
    truths: NDArray[Any],
    weights: NDArray[Any],
    fit: CrossFit,
    confidence: float,
    binary: bool,
) -> Intervals:
    """A row with a truth is judged as one without is, by the labelled rows outside its fold: no map that has a part in
    its interval has seen it, or the row whose error it tells."""
    numpy = require("numpy", "score")
    low, high = numpy.empty(len(scores)), numpy.empty(len(scores))
    others = numpy.ones(len(scores), bool)
    others[labelled] = False
    rows = numpy.flatnonzero(others)
    known = [scores[labelled], truths, weights[labelled]]
    low[rows], high[rows] = _plus(scores[rows], weights[rows], fit, known, confidence)
    fit_map = map_fitter(binary)
    without: dict[frozenset[int], ScoreMap] = {}
    folds = range(len(fit.maps))
    for pair in {frozenset((one, other)) for one in folds for other in folds}:
        seen = ~numpy.isin(fit.fold, list(pair))
        without[pair] = fit_map(*(each[seen] for each in known)) if seen.any() else fit.maps[min(pair)]
    for mine in folds:
        rest = fit.fold != mine
        inner = CrossFit(fit.fold[rest], [without[frozenset((mine, other))] for other in folds])
        rows = labelled[~rest]
        low[rows], high[rows] = _plus(scores[rows], weights[rows], inner, [each[rest] for each in known], confidence)
    return Intervals(low, high, Guarantee("CV+", max(2 * confidence - 1, 0.0), confidence))


def _plus(
    scores: NDArray[Any],
    judged: NDArray[Any],
    fit: CrossFit,
    known: Sequence[NDArray[Any]],
    confidence: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """CV+ of ``scores``, whose rows have the weights ``judged``; ``known``: scores, truths and weights of the labelled
    rows that ``fit`` is of."""
    numpy = require("numpy", "score")
    own, truths, weights = known
    errors = numpy.abs(truths - fit.of_labelled(own))
    low, high = numpy.empty(len(scores)), numpy.empty(len(scores))
    for block in _blocks(len(scores), len(own)):
        centres = numpy.stack([each(scores[block]) for each in fit.maps])[fit.fold]
        low[block] = -_upper(errors[:, None] - centres, weights, judged[block], confidence)
        high[block] = _upper(errors[:, None] + centres, weights, judged[block], confidence)
    return low, high


def _upper(ends: NDArray[Any], weights: NDArray[Any], judged: NDArray[Any], confidence: float) -> NDArray[Any]:
    """The quantile of each column of ``ends``, beside infinity with the weight of the row that is judged."""
    numpy = require("numpy", "score")
    order = numpy.argsort(ends, axis=0)
    sums = numpy.cumsum(weights[order], axis=0)
    needed = confidence * (sums[-1] + judged) * (1 - 1e-12)
    place = (sums < needed).sum(axis=0)
    sorted_ends = numpy.take_along_axis(ends, order, axis=0)
    padded = numpy.vstack([sorted_ends, numpy.full(ends.shape[1], math.inf)])
    found: NDArray[Any] = numpy.take_along_axis(padded, place[None], axis=0)[0]
    return found


def _blocks(rows: int, known: int) -> Iterator[slice]:
    size = max(_BLOCK // max(known, 1), 1)
    for begin in range(0, rows, size):
        yield slice(begin, begin + size)
