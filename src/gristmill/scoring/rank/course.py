"""What to do next for a ranking: which rows to judge, or that it has ended. Pure.

The same evidence leads to the same step: what is random comes from the goal's seed and the number of the step. Nothing
that is promised depends on the proxy, the pilot or the sizes chosen here, only what it costs.
"""

from __future__ import annotations

import math

import numpy as np

from gristmill.scoring.rank.ended import Basis, Certificate, NotCertified
from gristmill.scoring.rank.evidence import Evidence, How, Judge
from gristmill.scoring.rank.goal import Assumption, Goal, pilot_rows
from gristmill.scoring.rank.reckoning import LEAST_GROUP, Reckoning
from gristmill.scoring.rank.standing import Rows
from gristmill.scoring.statistics.betting_test import log_wealth
from gristmill.scoring.statistics.expected_draws import expected_share
from gristmill.scoring.statistics.least_rows import least_share

#: The cut goes down so much at a time.
_DEEPER = 1.5
#: Where more than this share of all rows would be judged, all are.
_ALL = 0.9


def decide(goal: Goal, evidence: Evidence) -> Judge | Certificate | NotCertified:
    """The next step. Raises ValueError for a goal that contradicts itself, and for evidence that does not belong to it
    or lacks a proxy after the pilot."""
    _check(goal, evidence)
    course = _Course(goal, evidence)
    if course.standing.spent == goal.rows:
        return course.everything()
    if not evidence.groups:
        return course.first()
    if evidence.proxy is None:
        raise ValueError("after the pilot a proxy is needed")
    return course.next()


def forecast(goal: Goal, evidence: Evidence) -> int:
    """About how many rows will be judged in all, by what is known by now: after the pilot and with a proxy a fair
    guess; before, the least that it can be."""
    _check(goal, evidence)
    course = _Course(goal, evidence)
    if not evidence.groups or evidence.proxy is None:
        return course.least()
    return course.reckoning.cost()


def least_rows(goal: Goal) -> int:
    """So many rows at least have to be judged by any method that promises the best K without an assumption; 0 for a
    cut, where it depends on how many rows are above it."""
    if goal.top is None:
        return 0
    return math.ceil(goal.rows * least_share(goal.may_miss(0), goal.confidence))


class _Course:
    """One look at the evidence."""

    def __init__(self, goal: Goal, evidence: Evidence) -> None:
        self._goal = goal
        self._step = len(evidence.groups)
        self.reckoning = Reckoning(goal, evidence)
        self.standing = self.reckoning.standing

    def least(self) -> int:
        """Rows judged at least, before there is a proxy."""
        goal = self._goal
        if self._is_hopeless():
            return goal.rows
        pilot = pilot_rows(goal.rows)
        return pilot if goal.assume is not None else max(pilot, least_rows(goal))

    def first(self) -> Judge | NotCertified:
        if self._is_hopeless():
            return self._all(self._goal.rows)
        rows = self._drawn(self.standing.unjudged(), pilot_rows(self._goal.rows))
        return self._within(Judge(How.PILOT, rows, self._goal.rows), self.least())

    def next(self) -> Judge | Certificate | NotCertified:
        if self._goal.assume is Assumption.THINNING and self.reckoning.cost_by_thinning() <= self.reckoning.split.rows:
            return self._by_thinning()
        return self._by_audit()

    def everything(self) -> Certificate | NotCertified:
        """Every row was judged."""
        if unknown := self.standing.unknown:
            why = f"{unknown:,} rows got no answer, and may be any of those looked for; the same again asks about them."
            return NotCertified(why, self._goal.rows, least_rows(self._goal), self.reckoning.facts())
        return self.certificate(Basis.EVERYTHING)

    def certificate(self, basis: Basis) -> Certificate:
        goal, reckoning = self._goal, self.reckoning
        if basis is Basis.EVERYTHING:
            return Certificate(basis, 1.0, 1.0, 1.0, reckoning.accepted, reckoning.facts())
        precision = 1.0 if goal.precision is None or not len(reckoning.accepted) else goal.precision
        return Certificate(basis, goal.recall, precision, goal.confidence, reckoning.accepted, reckoning.facts())

    def _is_hopeless(self) -> bool:
        """Whether it can be told beforehand that (nearly) everything has to be judged."""
        goal = self._goal
        if goal.recall >= 1 or max(pilot_rows(goal.rows), goal.top or 0) > _ALL * goal.rows:
            return True
        return goal.assume is None and least_rows(goal) > _ALL * goal.rows

    def _by_audit(self) -> Judge | Certificate | NotCertified:
        """Without an assumption: down to where it is cheapest to go on by draws, until it is refuted that too many are
        left, and that too many of the accepted are wrong."""
        goal, standing, reckoning = self._goal, self.standing, self.reckoning
        needed = reckoning.needed()
        wrong = reckoning.needed_of_accepted()
        if needed == wrong == 0 and standing.has_enough:
            return self.certificate(Basis.AUDIT)
        if standing.spent + needed + wrong > _ALL * goal.rows:
            return self._all(goal.rows)
        split = reckoning.split
        if split.accept < reckoning.accept and len(rows := standing.unjudged(split.accept, reckoning.accept)):
            return self._in_order(rows)
        depth = standing.depth(reckoning.accept)
        if needed and split.depth > depth:
            return self._in_order(standing.unjudged(reckoning.accept, _towards(split.depth, depth)))
        if needed or not standing.has_enough:
            return self._draw(How.AUDIT, reckoning.pool, max(needed, 1), needed + wrong)
        return self._draw(How.ACCEPTED, reckoning.accepted, wrong, wrong)

    def _by_thinning(self) -> Judge | Certificate | NotCertified:
        """Taking thinning for granted: deeper, until the lower half holds few enough, and the draws below it, scaled
        up, no more than may be missed (of few: none)."""
        goal, standing, reckoning = self._goal, self.standing, self.reckoning
        if standing.has_enough and reckoning.needed() == reckoning.needed_of_accepted() == 0:
            return self.certificate(Basis.AUDIT)
        depth = standing.depth(reckoning.accept)
        target = reckoning.thin_depth
        if depth < target and not standing.by_kind[How.PROXY]:
            return self._in_order(standing.unjudged(reckoning.accept, target))
        below = goal.rows - depth
        drawn = standing.drawn[depth:]
        hits = int((drawn & standing.found[depth:]).sum())
        too_many = hits * below > reckoning.may_miss * max(int(drawn.sum()), 1)
        if depth < goal.rows and (
            not standing.has_enough or reckoning.in_tail(depth) > reckoning.tail.most or too_many
        ):
            least, most = math.ceil(depth * 1.1), math.ceil(depth * _DEEPER)
            return self._in_order(standing.unjudged(reckoning.accept, min(max(target, least), most)))
        wanted = reckoning.audit_wanted(depth) - int(drawn.sum())
        if wanted > 0:
            return self._draw(How.AUDIT, reckoning.pool, wanted, wanted)
        if wrong := reckoning.needed_of_accepted():
            return self._draw(How.ACCEPTED, reckoning.accepted, wrong, wrong)
        return self.certificate(Basis.THINNING)

    def _in_order(self, rows: Rows) -> Judge | NotCertified:
        """Rows in the proxy's order, and as many as keep an engine busy."""
        if len(rows) < LEAST_GROUP:
            rest = self.reckoning.pool[~np.isin(self.reckoning.pool, rows)]
            rows = np.concatenate([rows, rest[: LEAST_GROUP - len(rows)]])
        return self._within(Judge(How.PROXY, rows), self.standing.spent + len(rows))

    def _draw(self, how: How, pool: Rows, count: int, needed: int) -> Judge | NotCertified:
        """``count`` of the ``needed`` draws, or rather more where hits are to come; a first part of them where they are
        many, as they may teach something."""
        goal, standing, reckoning = self._goal, self.standing, self.reckoning
        draws, allowed = (
            (standing.audit, reckoning.may_miss) if how is How.AUDIT else (standing.accepted, reckoning.may_be_wrong)
        )
        before = len(draws.hit)
        left = np.array(draws.hit.sum() * len(pool) / max(before, 1))
        share = expected_share(left, np.array(allowed), goal.each_confidence, log_wealth(draws, allowed))
        likely = min(int(share * len(pool)), before // 2)
        count = min(len(pool), max(LEAST_GROUP, min(max(count, likely), standing.spent)))
        step = Judge(how, self._drawn(pool, count), len(pool))
        return self._within(step, standing.spent + max(count, needed))

    def _within(self, step: Judge, total: int) -> Judge | NotCertified:
        """The step, where the budget allows for ``total`` rows judged in all."""
        if total > _ALL * self._goal.rows:
            return self._all(self._goal.rows)
        return step if self._goal.budget is None or total <= self._goal.budget else self._all(total)

    def _all(self, total: int) -> Judge | NotCertified:
        """All that is left, where the budget allows for that."""
        goal = self._goal
        if goal.budget is None or goal.rows <= goal.budget:
            return Judge(How.ALL, self.standing.unjudged())
        cost = total if not self._step else max(total, self.reckoning.cost())
        why = f"At most {goal.budget:,} rows may be judged, and at least {total:,} would have to be."
        return NotCertified(why, cost, least_rows(goal), self.reckoning.facts())

    def _drawn(self, rows: Rows, count: int) -> Rows:
        """Uniform draws without replacement, in their order: by NumPy's bit generator, whose stream is fixed for
        good."""
        keys = np.random.PCG64([self._goal.seed, self._step]).random_raw(len(rows))
        if count < len(rows):
            first = np.argpartition(keys, count)[:count]
            rows, keys = rows[first], keys[first]
        return rows[np.argsort(keys)]


def _towards(target: int, depth: int) -> int:
    """How deep to go next: not past where it may turn out to be deep enough."""
    return min(target, max(LEAST_GROUP, math.ceil(depth * _DEEPER), target // 2))


def _check(goal: Goal, evidence: Evidence) -> None:
    if (goal.top is None) == (goal.cut is None):
        raise ValueError("a goal has either a number of rows or a cut")
    if not (0 < goal.recall <= 1 and 0 < goal.confidence < 1):
        raise ValueError("recall and confidence are shares, and nothing random is certain")
    if goal.precision is not None and (goal.cut is None or not 0 < goal.precision <= 1):
        raise ValueError("precision is a share, and goes with a cut")
    if goal.rows < 1 or (goal.top is not None and goal.top < 1) or goal.seed < 0:
        raise ValueError("the table, the number of rows wanted and the seed are not negative, and the first two not 0")
    if evidence.proxy is not None and len(evidence.proxy) != goal.rows:
        raise ValueError("a proxy has a score for each row")
