"""What an answer about two items owes to which of them was named first, and what is left without that. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Numbers = NDArray[np.float64]

#: Answers are taken for no surer than this.
_SUREST = 1e-6


class PositionEffect(NamedTuple):
    """Of answers about pairs, each asked in both orders. ``first``: the mean probability of the item that was named
    first, 0.5 without an effect. ``turned``: the share of pairs of which the two orders named different items better.
    ``log_odds``: the mean of what an item gains by being named first."""

    first: float
    turned: float
    log_odds: float


def without_position(as_first: Numbers, as_second: Numbers) -> Numbers:
    """For each pair the share in which the one item is better: ``as_first`` is its probability when it was named first,
    ``as_second`` when the other was.

    The mean of both in log-odds, so that what a place adds to them cancels, even if it is another amount for each pair.
    Two choices give 1 or 0 where they agree, and a half where they do not.
    """
    return np.where(as_first == as_second, as_first, expit((_log_odds(as_first) + _log_odds(as_second)) / 2))


def position_effect(as_first: Numbers, as_second: Numbers) -> PositionEffect:
    """As for ``without_position``; of one pair at least."""
    return PositionEffect(
        float(np.concatenate([as_first, 1 - as_second]).mean()),
        float(((as_first - 0.5) * (as_second - 0.5) < 0).mean()),
        float((_log_odds(as_first) - _log_odds(as_second)).mean() / 2),
    )


def _log_odds(probability: Numbers) -> Numbers:
    return np.asarray(logit(np.clip(probability, _SUREST, 1 - _SUREST)))
