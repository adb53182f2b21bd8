"""How few of the rows looked for the end of what was judged may hold, where the order thins out. Pure.

The assumption is about what can be expected: the rows below the cut are expected to hold no more than the lower half of
those above it, and the same where the cut is put half as deep (for some goals a quarter as deep, and so on). Then all
but the first 1 / 2^s of the rows above the cut are expected to hold at least 2^s - 1 times as many as those below it.
Counts scatter about what is expected; they are taken for Poisson, as those of many rows of small chances are. Proofs:
docs/explanation/statistics.md, "Thinning".
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import pdtr, pdtrc

_LEAST_HALVINGS, _MOST_HALVINGS = 2, 30


class Tail(NamedTuple):
    """All but the first 1 / 2^``halvings`` of the rows above the cut may hold at most ``most`` of those looked for."""

    halvings: int
    most: int


@lru_cache(maxsize=256)
def tail(may_be_left: int, confidence: float) -> Tail:
    """The rule under which at most 1 - confidence is the probability of both: it is met, and more than
    ``may_be_left`` are below the cut; whatever number is expected there. It looks no further up than it must."""
    expected = np.geomspace(1e-9, 10 * (may_be_left + 10), 4_000)
    too_many = pdtrc(may_be_left, expected)
    for halvings in range(_LEAST_HALVINGS, _MOST_HALVINGS):
        above = (2**halvings - 1) * expected
        most, beyond = -1, 2**halvings * (may_be_left + 1)
        while beyond - most > 1:
            middle = (most + beyond) // 2
            if float((pdtr(middle, above) * too_many).max()) <= 1 - confidence:
                most = middle
            else:
                beyond = middle
        if most >= 0:
            return Tail(halvings, most)
    raise ValueError("the confidence is too close to 1")
