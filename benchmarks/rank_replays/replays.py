"""A ranking gone through on scores that are known already, and what came of it against what was promised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom

from gristmill.scoring.rank.course import decide
from gristmill.scoring.rank.ended import Certificate, NotCertified
from gristmill.scoring.rank.evidence import Evidence, Judge, Judged
from gristmill.scoring.rank.goal import Goal

#: A count of misses is within the binomial error where so few would be exceeded once in a hundred.
_SURE = 0.99


class Table(NamedTuple):
    """``score`` by the judge, of each row. ``proxy`` says what the proxy makes of a pilot of these rows and scores."""

    score: np.ndarray
    proxy: Callable[[np.ndarray, np.ndarray], np.ndarray]


class Replay(NamedTuple):
    ended: Certificate | NotCertified
    judged: int
    recall: float
    precision: float
    steps: int


def replay(goal: Goal, table: Table) -> Replay:
    groups: list[Judged] = []
    proxy = None
    while isinstance(step := decide(goal, Evidence(proxy, groups)), Judge):
        groups.append(Judged(step.how, step.rows, table.score[step.rows], step.pool))
        if proxy is None:
            proxy = table.proxy(step.rows, table.score[step.rows])
    judged = sum(len(group.rows) for group in groups)
    accepted = step.accepted if isinstance(step, Certificate) else np.zeros(0, np.int64)
    recall, precision = measured(goal, table.score, step.facts.best, accepted)
    return Replay(step, judged, recall, precision, len(groups))


def measured(goal: Goal, score: np.ndarray, best: np.ndarray, accepted: np.ndarray) -> tuple[float, float]:
    """Recall and precision of what is returned. Of rows with equal scores at the end of the best K any will do."""
    if goal.cut is not None:
        returned = np.concatenate([best, accepted])
        right, there = int((score[returned] >= goal.cut).sum()), int((score >= goal.cut).sum())
        return right / there if there else 1.0, right / len(returned) if len(returned) else 1.0
    scored = np.sort(score[~np.isnan(score)])[::-1][: goal.top]
    if len(scored) == 0:
        return 1.0, 1.0
    above, ties = int((score > scored[-1]).sum()), int((score[best] == scored[-1]).sum())
    return (int((score[best] > scored[-1]).sum()) + min(ties, len(scored) - above)) / len(scored), 1.0


def summary(goal: Goal, replays: Iterable[Replay]) -> dict[str, Any]:
    """Of replays with this goal: how often the promise was broken, and what it cost."""
    done = list(replays)
    recall = np.array([each.recall for each in done])
    judged = np.array([each.judged for each in done]) / goal.rows
    missed = recall < goal.recall - 1e-9
    wrong = np.array([each.precision < (goal.precision or 1) - 1e-9 for each in done])
    bases: dict[str, int] = {}
    for each in done:
        name = each.ended.basis.name if isinstance(each.ended, Certificate) else "none"
        bases[name] = bases.get(name, 0) + 1
    return {
        "rows": goal.rows,
        **({"top": goal.top} if goal.cut is None else {"cut": round(float(goal.cut), 4)}),
        "recall": goal.recall,
        **({} if goal.precision is None else {"precision": goal.precision}),
        "confidence": goal.confidence,
        "assumption": goal.assume.name if goal.assume else None,
        "replays": len(done),
        "promise_broken": int((missed | wrong).sum()),
        "recall_missed": int(missed.sum()),
        "precision_missed": int(wrong.sum()),
        "allowed_within_binomial_error": int(binom.ppf(_SURE, len(done), 1 - goal.confidence)),
        "recall_mean": round(float(recall.mean()), 5),
        "recall_least": round(float(recall.min()), 4),
        "judged_share": {
            name: round(float(np.quantile(judged, at)), 4)
            for name, at in (("least", 0), ("median", 0.5), ("90%", 0.9), ("most", 1))
        },
        "times_fewer_rows_judged": round(float(1 / np.median(judged)), 2),
        "steps_median": int(np.median([each.steps for each in done])),
        "certified_by": bases,
    }
