"""How many random draws the betting test may take, before they are made. Pure; an estimate that nothing rests on."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: What betting on several numbers at once costs, in the logarithm of the wealth.
_STAKES = 0.5
_SHARES = np.concatenate(
    [np.geomspace(1e-4, 0.05, 40), np.linspace(0.05, 0.9, 86)[1:], 1 - np.geomspace(0.1, 1e-5, 30)[1:]]
)


def expected_share(
    left: NDArray[np.float64], may_be_left: NDArray[np.float64], confidence: float, won_by_now: float = 0.0
) -> NDArray[np.float64]:
    """The share of a pool to be drawn until "more than ``may_be_left`` are left" is refuted, where about ``left`` are
    and the logarithm of the wealth is ``won_by_now``.

    After the share s, the best bet has won a - b + b ln(b / a), with a = -(may_be_left + 1) ln(1 - s) the draws'
    expected hits by the hypothesis and b = left s those there are.
    """
    drawn = _SHARES
    by_hypothesis = -(np.asarray(may_be_left)[..., None] + 1) * np.log1p(-drawn)
    there = np.minimum(np.maximum(np.asarray(left)[..., None], 1e-12) * drawn, by_hypothesis)
    won = by_hypothesis - there + there * np.log(there / by_hypothesis)
    enough = np.asarray(won >= -math.log1p(-confidence) + _STAKES - won_by_now)
    return np.where(enough.any(axis=-1), drawn[np.argmax(enough, axis=-1)], 1.0)
