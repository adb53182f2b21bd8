"""Where a ranking stands: what the evidence says of the rows looked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.scoring.rank.evidence import Evidence, How
from gristmill.scoring.rank.goal import Goal
from gristmill.scoring.statistics.betting_test import Draws


class Standing(NamedTuple):
    """``order``: all rows, proxies falling (those without one first, so that they are judged), then rows rising.
    ``best``: the rows found. ``depth``: so many rows at the front of the order are all judged. ``audit``: the draws
    that are bet on. ``found_below`` and ``drawn_below``: rows drawn at random that stand below ``depth``, and how many
    of them are among the rows found."""

    order: NDArray[np.int64]
    is_judged: NDArray[np.bool_]
    unjudged: NDArray[np.int64]
    best: NDArray[np.int64]
    has_enough: bool
    may_miss: int
    failed: int
    by_kind: Mapping[How, int]
    depth: int
    audit: Draws
    lower_half: int
    found_below: int
    drawn_below: int

    @property
    def judged(self) -> int:
        return sum(self.by_kind.values())

    @classmethod
    def of(cls, goal: Goal, evidence: Evidence) -> Standing:
        proxy = np.zeros(goal.rows) if evidence.proxy is None else np.asarray(evidence.proxy, np.float64)
        proxy = np.where(np.isnan(proxy), np.inf, proxy)
        order = np.argsort(-proxy, kind="stable")
        place = np.empty(goal.rows, np.int64)
        place[order] = np.arange(goal.rows)

        score = np.full(goal.rows, np.nan)
        is_judged = np.zeros(goal.rows, bool)
        by_kind = dict.fromkeys(How, 0)
        for group in evidence.groups:
            if is_judged[group.rows].any():
                raise ValueError("a row was judged twice")
            score[group.rows], is_judged[group.rows] = group.scores, True
            by_kind[group.how] += len(group.rows)

        scored = np.flatnonzero(~np.isnan(score))
        ranked = scored[np.lexsort((place[scored], -score[scored]))]
        best = ranked[: goal.top] if goal.cut is None else ranked[score[ranked] >= goal.cut]
        is_best = np.zeros(goal.rows, bool)
        is_best[best] = True

        behind = np.flatnonzero(~is_judged[order])
        depth = int(behind[0]) if len(behind) else goal.rows
        drawn = [group.rows for group in evidence.groups if group.how in (How.PILOT, How.AUDIT)]
        below = np.concatenate([*drawn, np.zeros(0, np.int64)])
        below = below[place[below] >= depth]
        audits = [group for group in evidence.groups if group.how is How.AUDIT]
        audit = Draws(
            np.concatenate([is_best[group.rows] for group in audits] or [np.zeros(0, bool)]),
            np.concatenate([group.pool - np.arange(len(group.rows)) for group in audits] or [np.zeros(0, np.int64)]),
        )
        return cls(
            order=order,
            is_judged=is_judged,
            unjudged=np.flatnonzero(~is_judged),
            best=best,
            has_enough=goal.top is None or len(best) == goal.top,
            may_miss=goal.may_miss(len(best)),
            failed=int((is_judged & np.isnan(score)).sum()),
            by_kind=by_kind,
            depth=depth,
            audit=audit,
            lower_half=int(is_best[order[depth // 2 : depth]].sum()),
            found_below=int(is_best[below].sum()),
            drawn_below=len(below),
        )
