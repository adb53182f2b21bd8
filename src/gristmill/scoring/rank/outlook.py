"""Where along the proxy's order the rows looked for are to be expected. Pure; nothing but the cost rests on it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr, ndtri

from gristmill.scoring.spearman import spearman

Numbers = NDArray[np.float64]

#: With fewer pairs of proxy and score nothing is known of how they go together.
_LEAST_PAIRS = 10
#: What the pilot says counts as much as so many judged rows of each part of the order.
_PRIOR = 2.0
_PARTS = 200
_ROUNDS = 25


def correlation(proxy: Numbers, score: Numbers) -> float:
    """Of the normal copula with the pilot's rank correlation; rows without one of the two are left out."""
    known = np.isfinite(proxy) & np.isfinite(score)
    return of_copula(spearman(proxy[known], score[known]) if known.sum() >= _LEAST_PAIRS else None)


def of_copula(rank_correlation: float | None) -> float:
    """The correlation of the normal copula that has this one of its ranks (Pearson 1907: r = 2 sin(pi rho / 6)), from 0
    to 0.999; 0 where nothing is known."""
    return min(max(2 * math.sin(math.pi / 6 * (rank_correlation or 0.0)), 0.0), 0.999)


def chances(
    rows: int, share: float, correlation: float, judged: NDArray[np.bool_], found: NDArray[np.bool_]
) -> Numbers:
    """For each of the ``rows`` places of the proxy's order, the chance that its row is one of those looked for.

    First by the normal copula: with z the normal quantile of the place and ``share`` the share looked for, it is
    Phi((r z + Phi^-1(share)) / sqrt(1 - r^2)). That is a probit regression on z, whose two numbers are then fitted to
    the places ``judged`` so far and those of them ``found``, with the copula as a prior of little weight.
    """
    place = _quantiles(rows)
    scale = math.sqrt(1 - correlation**2)
    start = np.array([float(ndtri(share)) / scale, correlation / scale])
    intercept, slope = _fit(place, start, judged, found)
    return np.asarray(ndtr(intercept + slope * place))


@lru_cache(maxsize=1)
def _quantiles(rows: int) -> Numbers:
    return np.asarray(-ndtri((np.arange(rows) + 0.5) / rows))


def _fit(place: Numbers, start: Numbers, judged: NDArray[np.bool_], found: NDArray[np.bool_]) -> Numbers:
    """Probit regression by Fisher scoring, on the sums of parts of the order that are finer where it begins."""
    rows = len(place)
    edges = np.unique(np.concatenate([[0], np.geomspace(1, rows, _PARTS).astype(np.int64)]))
    inside = np.diff(edges)
    z = np.add.reduceat(place, edges[:-1]) / inside
    prior = np.minimum(_PRIOR, inside)
    asked = np.add.reduceat(judged.astype(np.float64), edges[:-1]) + prior
    yes = np.add.reduceat(found.astype(np.float64), edges[:-1]) + prior * ndtr(start[0] + start[1] * z)
    design = np.stack([np.ones_like(z), z])
    fitted = start
    for _ in range(_ROUNDS):
        along = np.clip(fitted @ design, -8, 8)
        density = np.exp(-0.5 * along**2) / math.sqrt(2 * math.pi)
        spread = np.exp(log_ndtr(along) + log_ndtr(-along))
        information = (design * (asked * density**2 / spread)) @ design.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(information, design @ (density / spread * (yes - asked * ndtr(along))))
        fitted = fitted + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-6:
            break
    # A proxy that is no better than none, or turned round, is taken for none.
    return fitted if fitted[1] > 0 else np.array([float(ndtri(min(max(yes.sum() / asked.sum(), 1e-9), 1 - 1e-9))), 0.0])
