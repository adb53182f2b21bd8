"""Whether two scores put rows in the same order, with an interval for all rows. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gristmill.extras import require
from gristmill.scoring.statistics.prediction_powered import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Parts of the rows that are left out in turn.
_PARTS = 50


def rank_correlation(one: NDArray[Any], other: NDArray[Any], confidence: float) -> Estimate | None:
    """Spearman's correlation of the rows, which are a random sample, at least 10. None where one of the two has the
    same value throughout.

    The interval is for the correlation of all rows. A sample's own is too low for that, by much where it is near 1 and
    rows are few; what is centred on is free of it: ((n + 1) r - 3 tau) / (n - 2), with Kendall's tau (Hoeffding 1948).
    Its spread comes from leaving out one part of the rows after another (jackknife, on Fisher's scale, Student's t).
    Where fewer pairs of rows than half the rows are out of order, that spread rests on a few of them, or is nothing.
    There the interval also has all that their number allows: see ``_few_out_of_order``."""
    numpy, stats = require("numpy", "score"), require("scipy.stats", "score")
    if numpy.ptp(one) == 0 or numpy.ptp(other) == 0:
        return None
    value = float(stats.spearmanr(one, other).statistic)
    parts = min(len(one), _PARTS)
    part = numpy.arange(len(one)) % parts
    without = numpy.array([_on_fishers_scale(one[part != each], other[part != each]) for each in range(parts)])
    error = math.sqrt((parts - 1) / parts * float(((without - without.mean()) ** 2).sum()))
    middle, reach = _on_fishers_scale(one, other), float(stats.t.ppf((1 + confidence) / 2, parts - 1)) * error
    low, high = min(math.tanh(middle - reach), value), max(math.tanh(middle + reach), value)
    out_of_order = _out_of_order(one, other)
    if out_of_order < len(one) / 2:
        lowest, highest = _few_out_of_order(out_of_order, len(one), confidence)
        low, high = min(low, lowest), max(high, highest)
    return Estimate(value, low, high)


def _on_fishers_scale(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The correlation of all rows, estimated without bias. One nearer to 1 than rows can show is taken for what they
    can: half of what two neighbours that change places take away."""
    stats = require("scipy.stats", "score")
    rows = len(one)
    if one.min() == one.max() or other.min() == other.max():
        return 0.0
    rank, tau = (float(of(one, other).statistic) for of in (stats.spearmanr, stats.kendalltau))
    most = 1 - 6 / (rows * (rows**2 - 1))
    return math.atanh(min(max(((rows + 1) * rank - 3 * tau) / (rows - 2), -most), most))


def _few_out_of_order(count: int, rows: int, confidence: float) -> tuple[float, float]:
    """Ends for the correlation, from ``count`` pairs of rows that are out of order. Few ones have hardly a row in
    common, so that their number is as good as Poisson's, with his exact interval (Garwood 1936). It bounds the share of
    such pairs, that bounds tau, and tau the correlation: (3 tau - 1) / 2 and 1 - (1 - tau)² / 2 (Daniels 1950, Durbin
    and Stuart 1951)."""
    gamma = require("scipy.stats", "score").gamma
    tail, pairs = (1 - confidence) / 2, rows * (rows - 1) / 2
    least = float(gamma.ppf(tail, count)) if count else 0.0
    below_one, at_least = (2 * each / pairs for each in (float(gamma.isf(tail, count + 1)), least))
    return max(1 - 1.5 * below_one, -1.0), 1 - at_least**2 / 2


def _out_of_order(one: NDArray[Any], other: NDArray[Any]) -> int:
    """Pairs of rows that the two order the other way round; from tau-b, which takes no square of time."""
    numpy, stats = require("numpy", "score"), require("scipy.stats", "score")
    pairs = len(one) * (len(one) - 1) / 2
    tied, other_tied, both = (_pairs_alike(each) for each in (one, other, numpy.stack([one, other], axis=1)))
    tau = float(stats.kendalltau(one, other).statistic)
    surplus = tau * math.sqrt((pairs - tied) * (pairs - other_tied))
    return round((pairs - tied - other_tied + both - surplus) / 2)


def _pairs_alike(values: NDArray[Any]) -> float:
    counts = require("numpy", "score").unique(values, axis=0, return_counts=True)[1].astype(float)
    return float((counts * (counts - 1)).sum() / 2)
