"""How much two scores of the same rows differ on average, with an interval. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gristmill.extras import require
from gristmill.scoring.statistics.prediction_powered import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mean_difference(one: NDArray[Any], other: NDArray[Any], confidence: float) -> Estimate:
    """The mean of ``other`` - ``one`` over at least two rows, which are a random sample. Interval by Student's t of the
    differences, row by row (paired)."""
    differences = other - one
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    quantile = float(require("scipy.stats", "score").t.ppf((1 + confidence) / 2, len(differences) - 1))
    return Estimate(mean, mean - quantile * error, mean + quantile * error)
