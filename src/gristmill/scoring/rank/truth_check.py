"""How often the rows that the judge finds best are the best by right scores, where some rows have one. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gristmill.extras import require

_CONFIDENCE = 0.95
#: With fewer rows of the list that have a right score, an interval would say nothing.
_LEAST = 10


class TruthCheck(NamedTuple):
    """``known``: rows of the table that have a right score. Of ``listed`` rows of the list that have one, ``right`` are
    among the rows looked for by their right scores, where ``chance`` is the share of such rows among all that have
    one. ``low`` and ``high``: a 95 % interval of that share of the whole list; None where all of its rows have a
    right score, or too few."""

    known: int
    listed: int
    right: int
    chance: float
    low: float | None
    high: float | None

    def sentences(self, column: str, wanted: str, rows: int, returned: int) -> list[str]:
        """``wanted``: what is looked for, as "the best 100"; ``returned``: rows of the list."""
        known = "Every row has" if self.known == rows else f"{self.known:,} of {rows:,} rows have"
        has = f"{known} a right score in '{column}'"
        if not self.listed:
            return [f"{has}, but none of this list has: nothing can be said of the truth."]
        said = (
            f"{has}. Of the {self.listed:,} rows of this list that have one, {self.right:,} "
            f"({self.right / self.listed:.1%}) are among {wanted} by it; of rows taken at random it would be "
            f"{self.chance:.1%}."
        )
        if self.low is not None and self.high is not None:
            said += (
                f" If it is chance which rows have one, the share is {self.low:.1%} to {self.high:.1%} of all "
                f"{returned:,} (95 % interval)."
            )
        elif self.listed < returned:
            said += f" That is too few to say it of the whole list: {_LEAST} would do."
        return [said]


def check_against_truth(
    truths: Sequence[float | None], returned: Sequence[int], top: int | None, cut: float | None, sign: int
) -> TruthCheck:
    """``truths`` by row. Looked for are the ``top`` rows with the highest right scores (of those that have one, the
    same share; ties count as among them), or those whose right score, times ``sign``, is at least ``cut``.

    The interval is Clopper and Pearson's (1934).
    """
    known = sorted((value * sign for value in truths if value is not None), reverse=True)
    least = cut if cut is not None else known[max(math.ceil((top or 0) / len(truths) * len(known)), 1) - 1]
    listed = [value * sign for row in returned if (value := truths[row]) is not None]
    right = sum(value >= least for value in listed)
    chance = sum(value >= least for value in known) / len(known)
    low = high = None
    if _LEAST <= len(listed) < len(returned):
        stats = require("scipy.stats", "score")
        interval = stats.binomtest(right, len(listed)).proportion_ci(_CONFIDENCE, "exact")
        low, high = float(interval.low), float(interval.high)
    return TruthCheck(len(known), len(listed), right, chance, low, high)
