"""Where a ranking stands: what the evidence says of the rows looked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.scoring.rank.evidence import Evidence, How, Judged
from gristmill.scoring.rank.goal import Goal
from gristmill.scoring.statistics.betting_test import Draws

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Standing(NamedTuple):
    """``order``: all rows, proxies falling (those without one first, so that they are judged), then rows rising; a
    place is a position in it. ``judged`` and ``found``: by place, which rows are judged and which of those are among
    the rows looked for. ``best``: the latter as rows, scores falling, then in that order. ``drawn``: by place, which
    rows were drawn at random. ``audit`` and ``accepted``: the draws that are bet on, from the rows that are not
    accepted unjudged and from those that are; a hit is a row looked for there, and one that is not here. ``unknown``
    rows may be looked for: they are not in ``best``, but ``found``, and hits of both draws."""

    goal: Goal
    order: Rows
    judged: Flags
    found: Flags
    drawn: Flags
    best: Rows
    failed: int
    unknown: int
    by_kind: Mapping[How, int]
    audit: Draws
    accepted: Draws

    @classmethod
    def of(cls, goal: Goal, evidence: Evidence) -> Standing:
        """Raises ValueError for a row that was judged twice."""
        proxy = np.zeros(goal.rows) if evidence.proxy is None else np.asarray(evidence.proxy, np.float64)
        order = np.argsort(-np.where(np.isnan(proxy), np.inf, proxy), kind="stable")
        place = np.empty(goal.rows, np.int64)
        place[order] = np.arange(goal.rows)
        score = np.full(goal.rows, np.nan)
        judged = np.zeros(goal.rows, bool)
        drawn = np.zeros(goal.rows, bool)
        unknown = np.zeros(goal.rows, bool)
        by_kind = dict.fromkeys(How, 0)
        for group in evidence.groups:
            score[group.rows], judged[group.rows] = group.scores, True
            drawn[group.rows] = group.how in (How.PILOT, How.AUDIT)
            unknown[group.unknown] = True
            by_kind[group.how] += len(group.rows)
        if int(judged.sum()) < sum(by_kind.values()):
            raise ValueError("a row was judged twice")
        best = _best(goal, score, place)
        found = np.zeros(goal.rows, bool)
        found[best] = True
        return cls(
            goal=goal,
            order=order,
            judged=judged[order],
            found=(found | unknown)[order],
            drawn=drawn[order],
            best=best,
            failed=int((judged & np.isnan(score)).sum()),
            unknown=int(unknown.sum()),
            by_kind=by_kind,
            audit=_draws(evidence.groups, How.AUDIT, found | unknown),
            accepted=_draws(evidence.groups, How.ACCEPTED, ~found),
        )

    @property
    def spent(self) -> int:
        return sum(self.by_kind.values())

    @property
    def has_enough(self) -> bool:
        """Whether as many rows have a score as are wanted."""
        return self.goal.top is None or len(self.best) == self.goal.top

    def unjudged(self, begin: int = 0, end: int | None = None) -> Rows:
        """The rows at these places that are not judged yet, in the order of the places."""
        return self.order[begin:end][~self.judged[begin:end]]

    def depth(self, begin: int = 0) -> int:
        """The first place from ``begin`` on whose row is not judged."""
        behind = np.flatnonzero(~self.judged[begin:])
        return begin + int(behind[0]) if len(behind) else self.goal.rows


def _best(goal: Goal, score: NDArray[np.float64], place: Rows) -> Rows:
    scored = np.flatnonzero(~np.isnan(score))
    least = -np.inf
    if goal.cut is not None:
        least = goal.cut
    elif goal.top is not None and goal.top < len(scored):
        least = float(np.partition(score[scored], len(scored) - goal.top)[len(scored) - goal.top])
    reaching = scored[score[scored] >= least]
    return reaching[np.lexsort((place[reaching], -score[reaching]))][: goal.top]


def _draws(groups: Sequence[Judged], how: How, hit: Flags) -> Draws:
    chosen = [group for group in groups if group.how is how]
    rows = np.concatenate([np.zeros(0, np.int64), *(group.rows for group in chosen)])
    pools = [group.pool - np.arange(len(group.rows)) for group in chosen]
    return Draws(hit[rows], np.concatenate([np.zeros(0, np.int64), *pools]))
