"""What a ranking will cost from here, for every place where the cut may be put. Pure; nothing rests on it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.scoring.rank.goal import Goal
from gristmill.scoring.statistics.expected_draws import expected_share

#: Places that are looked at, and how far apart those below the cut are.
_PLACES = 32
#: Rows are only accepted unjudged where that costs clearly less: that too many of them are wrong shows late.
_UNSURE = 1.25


class Split(NamedTuple):
    """Rows of the places before ``accept`` are accepted unjudged and tested by draws; those before ``depth`` are all
    judged; those from there on are tested by draws. In all about ``rows`` more are judged."""

    accept: int
    depth: int
    rows: int


class Expectation(NamedTuple):
    """Sums over the places before each, from 0 to the number of rows: of the unjudged rows, and of their chances to be
    among those looked for; ``found`` are known to be."""

    unjudged: NDArray[np.float64]
    chances: NDArray[np.float64]
    found: int

    @classmethod
    def of(cls, judged: NDArray[np.bool_], found: int, chances: NDArray[np.float64]) -> Expectation:
        start = np.zeros(1)
        return cls(
            np.concatenate([start, np.cumsum(~judged)]), np.concatenate([start, np.cumsum(chances * ~judged)]), found
        )


def cheapest(
    goal: Goal, expected: Expectation, accept: NDArray[np.int64], depth: NDArray[np.int64], won: float
) -> Split:
    """Of all pairs of these places. ``won``: the logarithm of the wealth that the test of the rest has by now."""
    a, d = np.meshgrid(accept, depth, indexing="ij")
    a, d = a[a <= d], d[a <= d]
    upper, upper_good = expected.unjudged[a], expected.chances[a]
    middle, middle_good = expected.unjudged[d] - upper, expected.chances[d] - upper_good
    lower, lower_good = expected.unjudged[-1] - expected.unjudged[d], expected.chances[-1] - expected.chances[d]
    good = expected.found + middle_good
    wrong = np.floor((1 - (goal.precision or 1)) * (good + upper))
    right = good + np.minimum(upper_good, np.maximum(upper - wrong, 0))
    may_miss = np.array([goal.may_miss(int(each)) for each in right])
    rows = middle + lower * expected_share(lower_good, may_miss, goal.each_confidence, won)
    if goal.precision is not None:
        rows += _UNSURE * upper * expected_share(upper - upper_good, wrong, goal.each_confidence)
    least = int(np.argmin(rows))
    return Split(int(a[least]), int(d[least]), math.ceil(rows[least]))


def places(begin: int, rows: int) -> NDArray[np.int64]:
    """Where a cut may be put from ``begin`` on: further apart the further down, with both ends."""
    steps = np.geomspace(max(begin, 1), rows, _PLACES).astype(np.int64)
    return np.unique(np.concatenate([[begin], steps[steps > begin], [rows]])).astype(np.int64)
