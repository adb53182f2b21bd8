"""How far scores agree with right ones. Pure; needs the extra ``score`` (SciPy)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gristmill.extras import require

#: Resamples of a 95 % bootstrap interval, and the rows it is drawn from at most: of more, a sample gives an interval
#: that is wider than it could be, never narrower.
_RESAMPLES = 500
_BOOTSTRAP_ROWS = 5_000
_BINS = 10
_LEAST_ROWS = 3


class Measure(NamedTuple):
    """``low`` and ``high`` are the ends of a 95 % bootstrap interval; all are None where it is undefined (no two rows
    differ)."""

    name: str
    value: float | None
    low: float | None
    high: float | None


class Bin(NamedTuple):
    """Rows of about the same score: how many, and their mean score and mean truth."""

    rows: int
    score: float
    truth: float


class Agreement(NamedTuple):
    """``rows`` have both a score and a truth; ``unknown`` have a score but no truth."""

    rows: int
    unknown: int
    measures: list[Measure]
    calibration: list[Bin]


def agreement(scores: Sequence[float | None], truths: Sequence[float | None]) -> Agreement:
    """Spearman's rho, Kendall's tau-b, the area under the ROC curve and the mean absolute error.

    The area is that of two classes where there are two truths; of more, the share of pairs of rows with different
    truths that the scores put in the right order (ties half): the same number for two classes.
    """
    numpy = require("numpy", "score")
    pairs = [(s, t) for s, t in zip(scores, truths, strict=True) if s is not None and t is not None]
    unknown = sum(s is not None and t is None for s, t in zip(scores, truths, strict=True))
    if len(pairs) < _LEAST_ROWS:
        return Agreement(len(pairs), unknown, [], [])
    score, truth = numpy.array(pairs).T
    draw = numpy.random.default_rng(0)
    sample = draw.choice(len(pairs), min(len(pairs), _BOOTSTRAP_ROWS), replace=False)
    resamples = [draw.choice(sample, len(sample)) for _ in range(_RESAMPLES)]
    measures = [_measure(name, of, score, truth, resamples) for name, of in _MEASURES.items()]
    return Agreement(len(pairs), unknown, measures, _calibration(numpy, score, truth))


def _measure(name: str, of: Callable[[Any, Any], float], score: Any, truth: Any, resamples: list[Any]) -> Measure:
    numpy = require("numpy", "score")
    value = of(score, truth)
    if numpy.isnan(value):
        return Measure(name, None, None, None)
    found = numpy.array([of(score[chosen], truth[chosen]) for chosen in resamples])
    low, high = numpy.nanpercentile(found, [2.5, 97.5])
    return Measure(name, float(value), float(low), float(high))


def _spearman(score: Any, truth: Any) -> float:
    stats = require("scipy.stats", "score")
    return _correlation(stats.rankdata(score), stats.rankdata(truth))


def _correlation(one: Any, other: Any) -> float:
    numpy = require("numpy", "score")
    one, other = one - one.mean(), other - other.mean()
    scale = numpy.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale > 0 else float("nan")


def _kendall(score: Any, truth: Any) -> float:
    return float(require("scipy.stats", "score").kendalltau(score, truth).statistic)


def _area(score: Any, truth: Any) -> float:
    """Somers' D of the scores given the truths, as a share: (D + 1) / 2."""
    numpy = require("numpy", "score")
    if numpy.ptp(truth) == 0:
        return float("nan")
    tau = _kendall(score, truth)
    if numpy.isnan(tau):
        return 0.5
    # tau-b = (C - D) / sqrt(pairs untied in score * pairs untied in truth); the share wants (C - D) / untied in truth.
    ratio = numpy.sqrt(_untied(numpy, score) / _untied(numpy, truth))
    return float((tau * ratio + 1) / 2)


def _untied(numpy: Any, values: Any) -> float:
    """Pairs of rows whose values differ."""
    counts = numpy.unique(values, return_counts=True)[1].astype(float)
    total = counts.sum()
    return float((total * (total - 1) - (counts * (counts - 1)).sum()) / 2)


def _absolute_error(score: Any, truth: Any) -> float:
    return float(abs(score - truth).mean())


_MEASURES: dict[str, Callable[[Any, Any], float]] = {
    "Spearman": _spearman,
    "Kendall": _kendall,
    "AUC": _area,
    "mean absolute error": _absolute_error,
}


def _calibration(numpy: Any, score: Any, truth: Any) -> list[Bin]:
    """Bins of about as many rows each, in the order of the scores."""
    order = numpy.argsort(score, kind="stable")
    parts = [part for part in numpy.array_split(order, _BINS) if len(part)]
    return [Bin(len(part), float(score[part].mean()), float(truth[part].mean())) for part in parts]
