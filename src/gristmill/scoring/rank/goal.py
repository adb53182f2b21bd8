"""What a ranking is to find, and how sure it has to be. Pure."""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple


class Assumption(Enum):
    """What may be taken for granted of the proxy; chosen by the user, and told in the certificate."""

    THINNING = (
        "the rows that the proxy puts below the cut can be expected to hold, all together, no more of the best than "
        "the lower half of the rows above it, and the same where the cut is put half as deep"
    )


class Goal(NamedTuple):
    """Either the ``top`` K of ``rows`` rows, or all whose score is at least ``cut`` (for the other side of a cut, give
    scores and proxies with the sign turned).

    ``recall`` is the share of those that is returned at least, with probability ``confidence``. Returned rows have
    all been judged, but where ``precision`` is given, which goes with a cut only: then rows may be accepted unjudged,
    so that at least this share of what is returned is above the cut; recall and precision hold together, with
    probability ``confidence``. ``budget`` is the most rows to be judged; where it does not do, nothing is promised.
    """

    rows: int
    top: int | None = None
    cut: float | None = None
    recall: float = 0.95
    precision: float | None = None
    confidence: float = 0.95
    budget: int | None = None
    assume: Assumption | None = None
    seed: int = 0

    @property
    def each_confidence(self) -> float:
        """Of each of the bounds that have to hold together: where there are two, either may fail half as often."""
        return self.confidence if self.precision is None else 1 - (1 - self.confidence) / 2

    def may_miss(self, found: int) -> int:
        """How many of the rows looked for may be missing where ``found`` of them are returned. Of the best K it does
        not depend on that."""
        if self.top is not None:
            return _floor((1 - self.recall) * self.top)
        return _floor(found * (1 - self.recall) / self.recall)

    def may_be_wrong(self, returned: int) -> int:
        """How many of the rows returned may be below the cut."""
        return _floor((1 - (self.precision or 1)) * returned)


def pilot_rows(rows: int) -> int:
    """How many rows the pilot judges: four times the square root, between 256 and 2,000."""
    return min(rows, max(256, min(2_000, round(4 * math.sqrt(rows)))))


def _floor(value: float) -> int:
    """Of a product that is a whole number but for rounding, that number: 0.05 * 100 is 5."""
    return math.floor(value + 1e-9)
