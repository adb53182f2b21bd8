"""What is known of the rows so far: the proxy's scores, and the judge's in the groups they were asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class How(Enum):
    """How the rows of a group were chosen."""

    PILOT = "pilot"  #: at random, before there was a proxy
    PROXY = "proxy"  #: the next in the proxy's order
    AUDIT = "audit"  #: at random from the unjudged rows that are not accepted
    ACCEPTED = "accepted"  #: at random from the unjudged rows that are accepted
    ALL = "all"  #: whatever was left


class Judge(NamedTuple):
    """Have these rows judged, ``rows`` in the order in which they were drawn. ``pool`` is how many rows the first of
    them was drawn from (each takes its row out); 0 where they were not drawn."""

    how: How
    rows: NDArray[np.int64]
    pool: int = 0


class Judged(NamedTuple):
    """What came of a ``Judge``: the same, and for each of its rows the judge's score, NaN where there is none. Of
    those, ``unknown`` rows got no answer, and another day they might."""

    how: How
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    pool: int = 0
    unknown: NDArray[np.int64] = np.zeros(0, np.int64)


class Evidence(NamedTuple):
    """``proxy`` is a score for each row of the table, higher for those that the judge probably scores higher, and NaN
    where there is none; None until the pilot is judged, and the same from then on. ``groups`` are in the order in
    which they were asked for."""

    proxy: NDArray[np.float64] | None
    groups: Sequence[Judged]
