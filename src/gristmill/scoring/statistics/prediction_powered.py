"""Means, shares and ratios over a whole table of which only a sample has a truth, with prediction-powered intervals.

The predictions (scores, calibrated) are known of every row, so that only what they miss has to be estimated from the
sample. With power tuning they never make an interval wider in the long run. Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from gristmill.extras import require
from gristmill.scoring.statistics.strata import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Estimate(NamedTuple):
    """``low`` and ``high`` are the ends of an interval."""

    value: float
    low: float
    high: float


class Predictions(NamedTuple):
    """Of every row of the table; and of the labelled ones, by maps that have not seen them."""

    of_all: NDArray[Any]
    of_labelled: NDArray[Any]


class Labelled(NamedTuple):
    """Of the table: the ``sample``; of its labelled rows: their ``truths``; and what is predicted of them."""

    sample: Sample
    truths: NDArray[Any]
    predictions: Predictions


def mean(rows: Labelled, among: NDArray[Any], confidence: float) -> Estimate:
    """The mean truth of the rows ``among`` the table's (a mask): lambda times the mean prediction of them all, and the
    mean of what the labelled ones have beyond lambda times theirs. Interval by Student's t."""
    value, variance, freedom = _mean(rows, among)
    reach = _quantile(confidence, freedom) * math.sqrt(variance)
    return Estimate(value, value - reach, value + reach)


def share(rows: Labelled, among: NDArray[Any], confidence: float) -> Estimate:
    """``mean`` for truths that are 0 or 1. Its interval (``_as_binomial``) stays within 0 and 1, and has a width where
    all labelled rows are alike."""
    value, variance, freedom = _mean(rows, among)
    inside = among[rows.sample.labelled]
    return _as_binomial(value, variance, int(inside.sum()), confidence, freedom, _is_whole(rows.sample, among))


def recall(rows: Labelled, selected: NDArray[Any], among: NDArray[Any], confidence: float) -> Estimate:
    """For truths that are 0 or 1: of the ones ``among`` the rows, the share that is ``selected``; a ratio of two
    totals, its variance by linearization (delta method)."""
    numpy = require("numpy", "score")
    sample, truths, (of_all, own) = rows
    inside = among[sample.labelled].astype(float)
    chosen = selected[sample.labelled].astype(float)
    ratio = power = 1.0
    for _ in range(2):
        # What the labelled have beyond the predictions, and the totals with it.
        beyond = inside * (truths - power * own)
        hits = float(power * of_all[among & selected].sum() + (sample.weights * chosen * beyond).sum())
        total = float(power * of_all[among].sum() + (sample.weights * beyond).sum())
        ratio = min(max(hits / total, 0.0), 1.0) if total > 0 else math.nan
        if math.isnan(ratio):
            return Estimate(math.nan, 0.0, 1.0)
        part = (chosen - ratio) * inside
        power = _power(sample, part * truths, part * own)
    linear = part * (truths - power * own)
    variance = sample.variance_of_total(linear, linear) / total**2
    positive = int((inside * truths).sum())
    freedom = _freedom(sample, numpy.flatnonzero(inside * truths))
    return _as_binomial(ratio, variance, positive, confidence, freedom, _is_whole(sample, among))


def _mean(rows: Labelled, among: NDArray[Any]) -> tuple[float, float, int]:
    """The mean, its variance, and the degrees of freedom of that."""
    numpy = require("numpy", "score")
    sample, truths, (of_all, own) = rows
    inside = among[sample.labelled].astype(float)
    weights = sample.weights * inside
    height, total = int(among.sum()), float(weights.sum())

    def centred(values: NDArray[Any]) -> NDArray[Any]:
        """Linearized: the rows' number is known, and divided by as it is estimated (Hájek)."""
        found: NDArray[Any] = inside * (values - (weights * values).sum() / total)
        return found

    power = _power(sample, centred(truths), centred(own))
    beyond = truths - power * own
    value = float(power * of_all[among].mean() + (weights * beyond).sum() / total)
    linear = centred(beyond)
    # One for the mean, one for lambda.
    freedom = _freedom(sample, numpy.flatnonzero(inside))
    correction = (freedom + 2) / max(freedom, 1)
    return value, correction * sample.variance_of_total(linear, linear) / height**2, freedom


def _power(sample: Sample, truths: NDArray[Any], predicted: NDArray[Any]) -> float:
    """The lambda, in 0 to 1, with the least variance."""
    own = sample.variance_of_total(predicted, predicted)
    return min(max(sample.variance_of_total(truths, predicted) / own, 0.0), 1.0) if own > 0 else 0.0


def _freedom(sample: Sample, inside: NDArray[Any]) -> int:
    """Labelled rows, less one for each stratum they lie in, less one for lambda."""
    numpy = require("numpy", "score")
    strata = len(numpy.unique(sample.stratum[sample.labelled][inside]))
    return max(len(inside) - strata - 1, 1)


def _is_whole(sample: Sample, among: NDArray[Any]) -> bool:
    """Whether all of these rows are labelled, so that nothing is left to chance."""
    return int(among[sample.labelled].sum()) == int(among.sum())


def _as_binomial(
    value: float, variance: float, labelled: int, confidence: float, freedom: int, whole: bool
) -> Estimate:
    """Clopper and Pearson's interval for as many independent rows as would give the same variance, fewer where that
    itself is known from few (Korn and Graubard 1998)."""
    share = min(max(value, 0.0), 1.0)
    if whole:
        return Estimate(share, share, share)
    stats = require("scipy.stats", "score")
    spread = share * (1 - share)
    size = spread / variance if spread > 0 and variance > 0 else labelled
    beyond = (1 - confidence) / 2
    size *= (stats.norm.ppf(beyond) / stats.t.ppf(beyond, freedom)) ** 2
    hits, misses = share * size, (1 - share) * size
    low = float(stats.beta.ppf(beyond, hits, misses + 1)) if hits > 0 else 0.0
    high = float(stats.beta.isf(beyond, hits + 1, misses)) if misses > 0 else 1.0
    return Estimate(share, low, high)


def _quantile(confidence: float, freedom: int) -> float:
    return float(require("scipy.stats", "score").t.ppf((1 + confidence) / 2, freedom))
