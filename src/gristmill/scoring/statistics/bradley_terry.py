"""How strong each of several items is, by comparisons in pairs: the model of Bradley and Terry (1952). Pure.

With strengths s in log-odds, P(the one is better than the other) = 1 / (1 + exp(-(s_one - s_other))). What is known of
a pair may be any share between 0 and 1: the likelihood is then a quasi-likelihood (Wedderburn 1974), whose dispersion
is estimated. Formulas, and what is assumed: docs/explanation/statistics.md, "Rounds of comparisons".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Numbers = NDArray[np.float64]
Items = NDArray[np.int64]

#: A normal prior's standard deviation, in log-odds: it keeps an item that won everything finite, and sets how far apart
#: items may be that no chain of comparisons connects. An item at 3 wins 95 of 100 against one at 0.
_PRIOR = 3.0
#: With fewer degrees of freedom the dispersion is not estimated, but taken for the largest that there can be.
_LEAST_FREEDOM = 10.0
_STEPS, _CLOSE = 50, 1e-9
_LEAST_VARIANCE = 1e-12
#: No pair is taken to have more of a part in what is expected of it than this.
_MOST_LEVERAGE = 0.95


class Pairs(NamedTuple):
    """One place a pair of items (from 0) that were compared: the share, from 0 to 1, in which the ``one`` was found
    ``better`` than the ``other``. No item is compared with itself."""

    one: Items
    other: Items
    better: Numbers


class Strengths(NamedTuple):
    """``strength`` of each item in log-odds, 0 on average. ``variance``: of the error of each difference of two
    strengths, items by items. ``dispersion``: the variance of what is found of a pair, by that of a coin's flip: 1 at
    most; ``freedom``: its degrees of freedom, infinite where it was not estimated."""

    strength: Numbers
    variance: Numbers
    dispersion: float
    freedom: float


def fit_strengths(pairs: Pairs, items: int) -> Strengths:
    """Raises ValueError where there is no pair, or one of an item with itself.

    Newton's method for the penalized quasi-likelihood, in turn with Pearson's estimate of the dispersion. The variance
    of a difference is the larger of two: by that dispersion, and by the residuals as they are (a sandwich, HC3 of
    MacKinnon and White 1985), for items about which answers scatter more than about others.
    """
    if not len(pairs.better) or (pairs.one == pairs.other).any():
        raise ValueError("strengths come from pairs of different items")
    strength, dispersion, freedom = np.zeros(items), 1.0, np.inf
    for _ in range(_STEPS):
        before = dispersion
        penalty = dispersion / _PRIOR**2
        strength, information = _newton(pairs, strength, penalty)
        inverse = np.asarray(np.linalg.inv(information), np.float64)
        freedom = len(pairs.better) - items + penalty * float(np.trace(inverse))
        dispersion = _dispersion(pairs, strength, freedom) if freedom >= _LEAST_FREEDOM else 1.0
        if abs(dispersion - before) <= 1e-6 * before:
            break
    if freedom < _LEAST_FREEDOM:
        freedom = np.inf
    plain = _of_differences(dispersion * inverse)
    robust = _of_differences(inverse @ _scatter(pairs, strength, inverse, penalty, dispersion) @ inverse)
    return Strengths(strength - strength.mean(), np.maximum(plain, robust), dispersion, freedom)


def _newton(pairs: Pairs, start: Numbers, penalty: float) -> tuple[Numbers, Numbers]:
    """The strengths, and the penalized information there."""
    found, items = start, len(start)
    one, other = pairs.one, pairs.other
    for _ in range(_STEPS):
        expected, weight = _expected(pairs, found)
        residual = pairs.better - expected
        slope = np.bincount(one, residual, items) - np.bincount(other, residual, items) - penalty * found
        information = np.diag(np.bincount(one, weight, items) + np.bincount(other, weight, items) + penalty)
        np.add.at(information, (one, other), -weight)
        np.add.at(information, (other, one), -weight)
        step = np.linalg.solve(information, slope)
        # A longer one may overshoot where the likelihood is nearly flat.
        largest = float(np.abs(step).max())
        found = found + step * min(1.0, 2.0 / max(largest, _LEAST_VARIANCE))
        if largest < _CLOSE:
            break
    return found, information


def _expected(pairs: Pairs, strength: Numbers) -> tuple[Numbers, Numbers]:
    """And the variance of a coin's flip with that chance."""
    expected = np.asarray(expit(strength[pairs.one] - strength[pairs.other]))
    return expected, np.maximum(expected * (1 - expected), _LEAST_VARIANCE)


def _dispersion(pairs: Pairs, strength: Numbers, freedom: float) -> float:
    """Pearson's, but no less than shares as decided as these have: a share y with mean m has the variance m (1 - m)
    less the mean of y (1 - y), which is a coin's where all are 0 or 1. With few pairs an item, Pearson's is less."""
    expected, variance = _expected(pairs, strength)
    pearson = float(((pairs.better - expected) ** 2 / variance).sum()) / freedom
    decided = 1 - float((pairs.better * (1 - pairs.better)).sum()) / float(variance.sum())
    return min(max(pearson, decided, _LEAST_VARIANCE), 1.0)


def _scatter(pairs: Pairs, strength: Numbers, inverse: Numbers, penalty: float, dispersion: float) -> Numbers:
    """The variance of the slope by the residuals, and by the prior."""
    items = len(strength)
    expected, weight = _expected(pairs, strength)
    one, other = pairs.one, pairs.other
    leverage = weight * (inverse[one, one] + inverse[other, other] - 2 * inverse[one, other])
    squared = ((pairs.better - expected) / (1 - np.minimum(leverage, _MOST_LEVERAGE))) ** 2
    found = np.diag(np.bincount(one, squared, items) + np.bincount(other, squared, items) + penalty * dispersion)
    np.add.at(found, (one, other), -squared)
    np.add.at(found, (other, one), -squared)
    return found


def _of_differences(covariance: Numbers) -> Numbers:
    own = np.diag(covariance)
    return np.maximum(own[:, None] + own[None, :] - covariance - covariance.T, 0.0)
