"""How many of the rows looked for are left among the unjudged: a test by betting on random draws. Pure.

Each draw is uniform from a pool of unjudged rows and takes its row out of the pool; rows may leave the pool otherwise
too, none may enter it. Against "at least L + 1 are left now", a draw from u rows hits with probability of at least
q = (L + 1) / u, whatever happened before. Per draw the bet ``theta`` pays ``theta`` on a hit and
(1 - theta q) / (1 - q) on a miss: at most 1 on average while the hypothesis holds, so that the wealth exceeds 1 / alpha
ever with probability of at most alpha (Ville). Bets of this form do not mention L, which makes the answers for all L
and at all times hold together. Proofs and sources: docs/explanation/statistics.md, "How many are left".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

#: The bets, each by the share of L + 1 that it takes to be left, and what is staked on each: most on none, then on few.
THETAS = np.arange(10) / 10
STAKES = np.array([0.45, *(0.55 * (1 - THETAS[1:]) / (1 - THETAS[1:]).sum())])


class Draws(NamedTuple):
    """Random draws in their order: whether each was one of the rows looked for (a superset of those is safe, too), and
    how many rows its pool held just before it."""

    hit: NDArray[np.bool_]
    pool: NDArray[np.int64]


def log_wealth(draws: Draws, left: int) -> float:
    """The natural logarithm of the largest wealth that was ever held against "more than ``left`` are left"; at
    ln(1 / (1 - confidence)) or above it is refuted. Never below 0; infinite where the draws contradict it outright."""
    return _most(_Path.of(draws, left))


def most_left(draws: Draws, pool: int, confidence: float) -> int:
    """The least number L such that "more than L are left" is refuted, in a pool that holds ``pool`` rows by now. These
    bounds hold together for all times: the probability that one of them is ever too low is at most 1 - confidence."""
    low, high = -1, pool
    while high - low > 1:
        middle = (low + high) // 2
        if log_wealth(draws, middle) >= _needed(confidence):
            high = middle
        else:
            low = middle
    return high


def draws_needed(draws: Draws, pool: int, left: int, confidence: float) -> int:
    """How many more draws from a pool of ``pool`` rows would do, were none of them a hit, to refute "more than
    ``left`` are left". 0 where that is done."""
    path = _Path.of(draws, left)
    if pool <= left or _most(path) >= _needed(confidence):
        return 0
    # With fewer than left + 1 rows in the pool nothing is left to show.
    low, high = 0, pool - left
    while high - low > 1:
        middle = (low + high) // 2
        wealth = path.last + _misses(np.array([pool]), np.array([middle]), left)
        if float(_mixed(wealth)[0]) >= _needed(confidence):
            high = middle
        else:
            low = middle
    return high


class _Path(NamedTuple):
    """The logarithms of the wealth of every bet: before each hit and at the end (rows), and after all draws."""

    peaks: NDArray[np.float64]
    last: NDArray[np.float64]

    @classmethod
    def of(cls, draws: Draws, left: int) -> _Path:
        count = len(draws.hit)
        if count == 0:
            return cls(np.zeros((0, len(THETAS))), np.zeros(len(THETAS)))
        # Runs of misses from pools that shrink by one have a closed form; each ends with a hit, or before another pool.
        starts = np.ones(count, bool)
        starts[1:] = (draws.pool[1:] != draws.pool[:-1] - 1) | draws.hit[:-1]
        first = np.flatnonzero(starts)
        last = np.append(first[1:], count) - 1
        hit = draws.hit[last]
        with np.errstate(divide="ignore"):
            paid = np.where(hit[:, None], np.log(THETAS), 0.0)
        runs = _misses(draws.pool[first], last - first + 1 - hit, left)
        before = np.vstack([np.zeros(len(THETAS)), np.cumsum(paid, axis=0)[:-1]])
        with np.errstate(invalid="ignore"):
            peaks = np.cumsum(runs, axis=0) + before
        return cls(peaks, peaks[-1] + paid[-1])


def _misses(pool: NDArray[np.int64], misses: NDArray[np.int64], left: int) -> NDArray[np.float64]:
    """For runs of misses that begin at these pools: the logarithm of what each bet pays in all, a row a run."""
    begin, end = pool[:, None] + 1.0, (pool - misses)[:, None] + 1.0
    share, whole = THETAS * (left + 1), float(left + 1)
    # A miss where no more than left + 1 rows are there refutes by itself; where there was no draw, nothing is paid.
    beyond = (misses[:, None] > 0) & (end <= whole)
    end = np.where(beyond | (misses[:, None] == 0), whole + 1, end)
    begin = np.maximum(begin, end)
    found = gammaln(begin - share) - gammaln(end - share) - gammaln(begin - whole) + gammaln(end - whole)
    return np.where(misses[:, None] > 0, np.where(beyond, np.inf, found), 0.0)


def _mixed(wealth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of the stakes' wealth together, a number a row. Some bet still holds something in each."""
    most = wealth.max(axis=1)
    return np.asarray(most + np.log(np.exp(wealth - most[:, None]) @ STAKES))


def _most(path: _Path) -> float:
    if np.isposinf(path.peaks).any():
        return math.inf
    return max(0.0, float(_mixed(path.peaks).max())) if len(path.peaks) else 0.0


def _needed(confidence: float) -> float:
    return -math.log1p(-confidence)
