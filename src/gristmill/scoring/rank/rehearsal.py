"""What a ranking will probably cost: its course, gone through on made-up scores that are as like the guesses as the
pilot's are. Pure; nothing that is promised rests on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtri

from gristmill.scoring.rank.course import decide
from gristmill.scoring.rank.evidence import Evidence, How, Judge, Judged
from gristmill.scoring.rank.goal import Goal
from gristmill.scoring.rank.outlook import of_copula

#: The course is gone through so often, and the mean is told.
_TIMES = 3


def rehearse(goal: Goal, rank_correlation: float | None, share: float) -> Mapping[How, int]:
    """Rows that are judged at each kind of step, whatever the budget. By the pilot: Spearman's ``rank_correlation`` of
    guesses and scores (None where it cannot be told), and the ``share`` of rows above the cut, where there is one.

    Guess and score are taken to be joined by a normal copula (Pearson 1907: r = 2 sin(pi rho / 6)).
    """
    likeness = of_copula(rank_correlation)
    if goal.cut is not None:
        goal = goal._replace(cut=float(ndtri(1 - share)))
    totals = dict.fromkeys(How, 0)
    for time in range(_TIMES):
        for how, rows in _once(goal._replace(budget=None), likeness, time).items():
            totals[how] += rows
    return {how: round(rows / _TIMES) for how, rows in totals.items()}


def _once(goal: Goal, likeness: float, time: int) -> Mapping[How, int]:
    random = np.random.default_rng([goal.seed, time])
    proxy = random.normal(size=goal.rows)
    score = likeness * proxy + math.sqrt(max(1 - likeness**2, 0.0)) * random.normal(size=goal.rows)
    groups: list[Judged] = []
    step: Any = decide(goal, Evidence(None, groups))
    while isinstance(step, Judge):
        groups.append(Judged(step.how, step.rows, score[step.rows], step.pool))
        step = decide(goal, Evidence(proxy, groups))
    judged = dict.fromkeys(How, 0)
    for group in groups:
        judged[group.how] += len(group.rows)
    return judged
