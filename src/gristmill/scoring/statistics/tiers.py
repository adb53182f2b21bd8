"""Which of several items can be told apart, all together at one confidence, and the tiers that this makes. Pure."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import studentized_range

from gristmill.scoring.statistics.bradley_terry import Strengths


def told_apart(strengths: Strengths, confidence: float) -> NDArray[np.bool_]:
    """Items by items: whether the one of the row is better than that of the column. That any of these is wrong has a
    probability of about 1 - ``confidence`` at most.

    Tukey's and Kramer's method (Kramer 1956): a difference counts from q / sqrt(2) of its standard errors on, with q
    the quantile of the studentized range of as many items. It is a partial order: standard errors of differences keep
    to the triangle inequality, so that who is better than a better one is better.
    """
    items = len(strengths.strength)
    if items < 2:
        return np.zeros((items, items), bool)
    freedom = math.floor(strengths.freedom) if math.isfinite(strengths.freedom) else math.inf
    least = _least(confidence, items, freedom)
    difference = strengths.strength[:, None] - strengths.strength[None, :]
    return np.asarray(difference > np.maximum(least * np.sqrt(strengths.variance), 1e-9))


@lru_cache
def _least(confidence: float, items: int, freedom: float) -> float:
    """It takes a fifth of a second."""
    return float(studentized_range.ppf(confidence, items, freedom)) / math.sqrt(2)


def tiers(better: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each item, from 1: one more than the best tier in which nothing is better than it.

    Of a partial order that is the longest chain down to the item (Mirsky 1971), and the fewest parts there can be: no
    two items of a tier are told apart, and each item of a later one is worse than some item of the tier before.
    """
    tier = np.zeros(len(better), np.int64)
    left = np.ones(len(better), bool)
    number = 0
    while left.any():
        number += 1
        now = left & ~better[left].any(axis=0)
        tier[now] = number
        left &= ~now
    return tier
