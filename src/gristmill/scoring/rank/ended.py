"""How a ranking ends: with a certificate, or with the reason why there is none. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.scoring.rank.evidence import How
from gristmill.scoring.statistics.thinning import Tail


class Basis(Enum):
    """What a certificate rests on."""

    EVERYTHING = "every row was judged"
    AUDIT = "random draws, without any assumption"
    THINNING = "an assumption about the proxy, and random draws that did not contradict it"


class Facts(NamedTuple):
    """What was found, whatever it is taken to prove.

    ``best``: the rows found, in the order of their ranks: score falling, proxy falling, row rising. ``judged``: rows
    by how they were chosen; ``failed`` of them got no score from the judge and are never among the best. ``depth``: so
    many rows of the highest proxies have all been judged. ``audited``: random draws below them, of which
    ``audit_hits`` are among those looked for. ``may_miss``: how many of them the goal allows to be left unjudged;
    ``most_left``: with the goal's confidence and without an assumption, no more than so many are;
    ``assumption_free_recall`` follows from it. ``log_wealth``: of the test of ``may_miss``; it passes at ``ln(1 /
    (1 - confidence))``. ``in_tail``: of those looked for, how many the ``tail`` of the first ``depth`` rows holds.
    """

    best: NDArray[np.int64]
    judged: Mapping[How, int]
    failed: int
    depth: int
    audited: int
    audit_hits: int
    may_miss: int
    most_left: int
    assumption_free_recall: float
    log_wealth: float
    tail: Tail
    in_tail: int


class Certificate(NamedTuple):
    """``recall`` and ``precision`` hold together with probability ``confidence``: where ``basis`` is EVERYTHING, surely
    (all three are 1); where it is THINNING, if the assumption holds. ``accepted``: rows returned unjudged, after
    ``facts.best``, in the order of the proxy; without them the precision is 1."""

    basis: Basis
    recall: float
    precision: float
    confidence: float
    accepted: NDArray[np.int64]
    facts: Facts


class NotCertified(NamedTuple):
    """``why`` is a sentence. ``would_cost``: about so many rows judged in all would do, as far as can be told;
    ``least``: with fewer than so many judged rows nobody can promise it without an assumption."""

    why: str
    would_cost: int
    least: int
    facts: Facts
