"""What came of comparing the rows found: their strengths, their tiers and their order. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gristmill.scoring.rank.pairing import Pair
from gristmill.scoring.spearman import spearman
from gristmill.scoring.statistics.bradley_terry import Pairs, fit_strengths
from gristmill.scoring.statistics.position_effect import PositionEffect, position_effect, without_position
from gristmill.scoring.statistics.tiers import tiers, told_apart
from gristmill.wire.batch import Batch

#: Of a strength; a library's last bits are nobody's business.
_DECIMALS = 6
#: With fewer rows that have a right score, nothing is said of them.
_LEAST_TRUTHS = 10


class Answered(NamedTuple):
    """Of each pair of rows, asked in both orders: the probability that the first of the two is better, when it was
    named first and when it was named second; NaN where there is no answer. ``error``: what kept one away."""

    pairs: Sequence[Pair]
    as_first: Sequence[float]
    as_second: Sequence[float]
    error: str | None
    batches: Sequence[Batch]


class ByTruth(NamedTuple):
    """Of the ``rows`` compared that have a right score, Spearman's correlation of that with the ``scores`` and with the
    ``strengths``; None where one of them is the same throughout."""

    rows: int
    scores: float | None
    strengths: float | None


class Compared(NamedTuple):
    """``order``: the rows of the list in their new order; ``strength`` (in log-odds) and ``tier`` (from 1) of each in
    that order, None of those that no pair tells of, which come last. Of ``pairs`` asked about, each in both orders,
    ``answered`` were answered in both. Rows of one tier cannot be told apart, those of two need not be: all that is
    told apart holds together with ``confidence``. ``likeness``: Spearman's correlation of strengths and scores.
    ``error``: why an answer is missing."""

    order: Sequence[int]
    strength: Sequence[float | None]
    tier: Sequence[int | None]
    rounds: int
    pairs: int
    answered: int
    confidence: float
    dispersion: float | None
    position: PositionEffect | None
    likeness: float | None
    truth: ByTruth | None
    error: str | None
    batches: Sequence[Batch]

    @property
    def tiers(self) -> int:
        return max((tier for tier in self.tier if tier is not None), default=0)


def compared(
    answered: Answered,
    rounds: int,
    rows: Sequence[int],
    scores: Sequence[float | None],
    truths: Sequence[float | None] | None,
    confidence: float,
    sign: int,
) -> Compared:
    """``rows`` of the list in their order, with their ``scores``; ``truths`` by row of the table. ``sign``: -1 where
    the worst rows come first."""
    as_first, as_second = np.array(answered.as_first), np.array(answered.as_second)
    known = np.isfinite(as_first) & np.isfinite(as_second)
    named = np.array(answered.pairs, np.int64).reshape(-1, 2)[known]
    items, place = np.unique(named, return_inverse=True)
    strength_of: dict[int, float] = {}
    tier_of: dict[int, int] = {}
    dispersion = position = None
    if len(items):
        one, other = place.reshape(-1, 2).T
        better = without_position(as_first[known], as_second[known])
        fitted = fit_strengths(Pairs(one, other, better), len(items))
        turned = fitted._replace(strength=fitted.strength * sign)
        found = tiers(told_apart(turned, confidence))
        strength_of = dict(zip(items.tolist(), (fitted.strength.round(_DECIMALS) + 0.0).tolist(), strict=True))
        tier_of = dict(zip(items.tolist(), found.tolist(), strict=True))
        dispersion = round(fitted.dispersion, _DECIMALS)
        effect = position_effect(as_first[known], as_second[known])
        position = PositionEffect(*(round(each, _DECIMALS) for each in effect))
    # Stable: of equals, the one with the better score comes first.
    order = sorted(rows, key=lambda row: (tier_of.get(row, math.inf), -sign * strength_of.get(row, 0.0)))
    strengths = [strength_of.get(row) for row in order]
    score_of = dict(zip(rows, scores, strict=True))
    return Compared(
        order,
        strengths,
        [tier_of.get(row) for row in order],
        rounds,
        len(answered.pairs),
        int(known.sum()),
        confidence,
        dispersion,
        position,
        _likeness([score_of[row] for row in order], strengths),
        _by_truth(order, score_of, strengths, truths) if truths is not None else None,
        answered.error,
        answered.batches,
    )


def _likeness(one: Sequence[float | None], other: Sequence[float | None]) -> float | None:
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    found = spearman([a for a, _ in pairs], [b for _, b in pairs]) if len(pairs) > 1 else None
    return None if found is None else round(found, _DECIMALS)


def _by_truth(
    order: Sequence[int],
    score_of: dict[int, float | None],
    strengths: Sequence[float | None],
    truths: Sequence[float | None],
) -> ByTruth | None:
    known = [
        (truth, score, strength)
        for row, strength in zip(order, strengths, strict=True)
        if (truth := truths[row]) is not None and (score := score_of[row]) is not None and strength is not None
    ]
    if len(known) < _LEAST_TRUTHS:
        return None
    right, scores, strong = zip(*known, strict=True)
    return ByTruth(len(known), _likeness(right, scores), _likeness(right, strong))
