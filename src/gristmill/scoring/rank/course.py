"""What to do next for a ranking: which rows to judge, or that it has ended. Pure.

The same evidence leads to the same step, on any machine: what is random comes from the goal's seed and the number of
the step. Nothing that is promised depends on the proxy, the pilot or the sizes chosen here, only what it costs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gristmill.scoring.rank.ended import Basis, Certificate, Facts, NotCertified
from gristmill.scoring.rank.evidence import Evidence, How, Judge
from gristmill.scoring.rank.first_cut import first_cut
from gristmill.scoring.rank.goal import Assumption, Goal
from gristmill.scoring.rank.standing import Standing
from gristmill.scoring.statistics.betting_test import draws_needed, log_wealth, most_left
from gristmill.scoring.statistics.least_rows import least_share

Rows = NDArray[np.int64]

#: Rows of a group at least, so that an engine is kept busy.
_LEAST_GROUP = 64
#: The cut goes down so much at a time.
_DEEPER = 1.5
#: Where more than this share of all rows would be judged, all are.
_ALL = 0.9


def decide(goal: Goal, evidence: Evidence) -> Judge | Certificate | NotCertified:
    """The next step. Raises ValueError for a goal that contradicts itself and for evidence without a proxy after the
    pilot."""
    _check(goal, evidence)
    standing = Standing.of(goal, evidence)
    if len(standing.unjudged) == 0:
        return _everything(goal, standing)
    if not evidence.groups:
        return _first(goal, standing)
    if evidence.proxy is None:
        raise ValueError("after the pilot a proxy is needed")
    if evidence.groups[-1].how is How.ALL:
        raise ValueError("a group of all that was left did not hold all that was left")
    return _next(goal, standing, evidence, evidence.proxy)


def pilot_rows(rows: int) -> int:
    """How many rows the pilot judges: four times the square root, between 256 and 2,000."""
    return min(rows, max(256, min(2_000, round(4 * math.sqrt(rows)))))


def least_rows(goal: Goal) -> int:
    """So many rows at least are judged before anything can be promised for the best K without an assumption; 0 for a
    cut, where it depends on how many are above it."""
    if goal.top is None:
        return 0
    return math.ceil(goal.rows * least_share(goal.may_miss(0), goal.confidence))


def _first(goal: Goal, standing: Standing) -> Judge | NotCertified:
    pilot = pilot_rows(goal.rows)
    top = goal.top or 0
    hopeless = goal.recall >= 1 or top > _ALL * goal.rows
    if goal.assume is None:
        hopeless = hopeless or least_rows(goal) > _ALL * goal.rows
    if hopeless or pilot > _ALL * goal.rows:
        return _all(goal, standing, goal.rows)
    if goal.assume is None and goal.budget is not None and goal.budget < least_rows(goal):
        return _all(goal, standing, least_rows(goal))
    return _within(goal, standing, Judge(How.PILOT, _drawn(goal, 0, standing.unjudged, pilot), goal.rows), pilot)


def _next(
    goal: Goal, standing: Standing, evidence: Evidence, proxy: NDArray[np.float64]
) -> Judge | Certificate | NotCertified:
    pilot = evidence.groups[0]
    cut = first_cut(goal, proxy[pilot.rows], pilot.scores)
    if standing.depth < cut:
        return _deeper(goal, standing, cut)
    if goal.assume is Assumption.THINNING:
        return _thinning(goal, standing, len(evidence.groups))
    return _audit(goal, standing, len(evidence.groups))


def _audit(goal: Goal, standing: Standing, step: int) -> Judge | Certificate | NotCertified:
    """Without an assumption: draw, until it is refuted that too many are left."""
    needed = draws_needed(standing.audit, len(standing.unjudged), standing.may_miss, goal.confidence)
    if needed == 0 and standing.has_enough:
        return _certificate(goal, standing, Basis.AUDIT)
    needed = max(needed, 1)
    total = standing.judged + needed
    if total > _ALL * goal.rows:
        return _all(goal, standing, goal.rows)
    count = min(needed, max(_LEAST_GROUP, standing.judged), len(standing.unjudged))
    rows = _drawn(goal, step, standing.unjudged, count)
    return _within(goal, standing, Judge(How.AUDIT, rows, len(standing.unjudged)), total)


def _thinning(goal: Goal, standing: Standing, step: int) -> Judge | Certificate | NotCertified:
    """Taking thinning for granted: deeper, until the lower half holds few enough and no draw below it one."""
    if not standing.has_enough or standing.lower_half > standing.may_miss or standing.found_below:
        return _deeper(goal, standing, math.ceil(standing.depth * _DEEPER))
    missing = _audit_wanted(goal, standing) - standing.drawn_below
    if missing <= 0:
        return _certificate(goal, standing, Basis.THINNING)
    count = min(max(missing, _LEAST_GROUP), len(standing.unjudged))
    rows = _drawn(goal, step, standing.unjudged, count)
    return _within(goal, standing, Judge(How.AUDIT, rows, len(standing.unjudged)), standing.judged + count)


def _audit_wanted(goal: Goal, standing: Standing) -> int:
    """Draws from below the cut: so many that as many of the best as were found would hardly be overlooked there (an
    assumption-free recall of one half), but no more than there are rows above it."""
    below = goal.rows - standing.depth
    return min(standing.depth, math.ceil(below * least_share(max(len(standing.best), 1) - 1, goal.confidence)))


def _deeper(goal: Goal, standing: Standing, depth: int) -> Judge | NotCertified:
    """All rows of the first ``depth`` in the proxy's order."""
    rows = standing.order[:depth]
    rows = rows[~standing.is_judged[rows]]
    if len(rows) < _LEAST_GROUP:
        rest = standing.order[depth:]
        rows = np.concatenate([rows, rest[~standing.is_judged[rest]][: _LEAST_GROUP - len(rows)]])
    total = standing.judged + len(rows)
    if total > _ALL * goal.rows:
        return _all(goal, standing, goal.rows)
    return _within(goal, standing, Judge(How.PROXY, rows), total)


def _within(goal: Goal, standing: Standing, step: Judge, total: int) -> Judge | NotCertified:
    """The step, where the budget allows for ``total`` rows judged in all."""
    return step if goal.budget is None or total <= goal.budget else _all(goal, standing, total)


def _all(goal: Goal, standing: Standing, total: int) -> Judge | NotCertified:
    """All that is left, where the budget allows for that or it is wanted anyway."""
    if goal.or_all or goal.budget is None or goal.rows <= goal.budget:
        return Judge(How.ALL, standing.unjudged)
    why = f"At most {goal.budget} rows may be judged, and at least {total} would have to be."
    return NotCertified(why, total, least_rows(goal), _facts(goal, standing))


def _everything(goal: Goal, standing: Standing) -> Certificate:
    nothing = np.zeros(0, np.int64)
    return Certificate(Basis.EVERYTHING, 1.0, 1.0, 1.0, nothing, _facts(goal, standing))


def _certificate(goal: Goal, standing: Standing, basis: Basis) -> Certificate:
    nothing = np.zeros(0, np.int64)
    return Certificate(basis, goal.recall, 1.0, goal.confidence, nothing, _facts(goal, standing))


def _facts(goal: Goal, standing: Standing) -> Facts:
    pool = len(standing.unjudged)
    left = most_left(standing.audit, pool, goal.confidence)
    if goal.top is not None:
        wanted = min(goal.top, goal.rows)
        recall = max(0.0, 1 - left / wanted)
    else:
        recall = len(standing.best) / max(len(standing.best) + left, 1) if pool else 1.0
    return Facts(
        best=standing.best,
        judged=standing.by_kind,
        failed=standing.failed,
        depth=standing.depth,
        audited=len(standing.audit.hit),
        audit_hits=int(standing.audit.hit.sum()),
        may_miss=standing.may_miss,
        most_left=left,
        assumption_free_recall=recall,
        log_wealth=log_wealth(standing.audit, standing.may_miss),
        lower_half=standing.lower_half,
    )


def _drawn(goal: Goal, step: int, rows: Rows, count: int) -> Rows:
    """Uniform draws without replacement, in their order: by NumPy's bit generator, whose stream is fixed for good."""
    keys = np.random.PCG64([goal.seed, step]).random_raw(len(rows))
    return rows[np.argsort(keys, kind="stable")[:count]]


def _check(goal: Goal, evidence: Evidence) -> None:
    if (goal.top is None) == (goal.cut is None):
        raise ValueError("a goal has either a number of rows or a cut")
    if not (0 < goal.recall <= 1 and 0 < goal.confidence < 1):
        raise ValueError("recall and confidence are shares, and nothing random is certain")
    if goal.precision is not None and (goal.cut is None or not 0 < goal.precision <= 1):
        raise ValueError("precision is a share, and goes with a cut")
    if goal.rows < 1 or (goal.top is not None and goal.top < 1) or goal.seed < 0:
        raise ValueError("rows, the number of them wanted and the seed are positive")
    if evidence.proxy is not None and len(evidence.proxy) != goal.rows:
        raise ValueError("a proxy has a score for each row")
