"""How deep in the proxy's order to judge at first, from the pilot. Pure; only the cost depends on it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import spearmanr

from gristmill.scoring.rank.goal import Goal

#: With fewer rows that have both scores, or with none that differ, nothing is known.
_LEAST_ROWS = 10
_LEAST_DEPTH = 64


def first_cut(goal: Goal, proxy: NDArray[np.float64], score: NDArray[np.float64]) -> int:
    """Rows from the top of the proxy's order, by the pilot's proxies and scores (NaN where there is none).

    Proxy and score are taken to be joined by a normal copula, whose correlation follows from the rank correlation of
    the pilot: then the chance of being among those looked for has a closed form along the proxy's order, and the cut
    is where no more than a third of what may be missed is expected behind it.
    """
    known = np.isfinite(proxy) & np.isfinite(score)
    proxy, score = proxy[known], score[known]
    if len(score) < _LEAST_ROWS or np.ptp(score) == 0 or np.ptp(proxy) == 0:
        return min(goal.rows, _LEAST_DEPTH)
    share = (goal.top or 0) / goal.rows if goal.cut is None else float((score >= goal.cut).mean())
    share = min(max(share, 0.5 / goal.rows), 1 - 0.5 / goal.rows)
    rho = 2 * math.sin(math.pi / 6 * float(spearmanr(proxy, score).statistic))
    rho = min(max(rho, 0.0), 0.999)
    place = -ndtri((np.arange(goal.rows) + 0.5) / goal.rows)
    chance = ndtr((rho * place + ndtri(share)) / math.sqrt(1 - rho**2))
    left = chance.sum() - np.cumsum(chance)
    enough = np.flatnonzero(left <= max(0.5, goal.may_miss(round(share * goal.rows)) / 3))
    depth = int(enough[0]) + 1 if len(enough) else goal.rows
    return min(goal.rows, max(depth, _LEAST_DEPTH))
