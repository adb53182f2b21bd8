"""What to do next for a ranking: which rows to judge, or that it has ended. Pure.

The same evidence leads to the same step: what is random comes from the goal's seed and the number of the step. Nothing
that is promised depends on the proxy, the pilot or the sizes chosen here, only what it costs.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gristmill.scoring.rank.ended import Basis, Certificate, Facts, NotCertified
from gristmill.scoring.rank.evidence import Evidence, How, Judge
from gristmill.scoring.rank.expense import Expectation, Split, cheapest, places
from gristmill.scoring.rank.goal import Assumption, Goal
from gristmill.scoring.rank.outlook import chances, correlation
from gristmill.scoring.rank.standing import Rows, Standing
from gristmill.scoring.statistics.betting_test import draws_needed, log_wealth, most_left
from gristmill.scoring.statistics.expected_draws import expected_share
from gristmill.scoring.statistics.least_rows import least_share
from gristmill.scoring.statistics.thinning import Tail, tail

#: Rows of a group at least, so that an engine is kept busy.
_LEAST_GROUP = 64
#: The cut goes down so much at a time.
_DEEPER = 1.5
#: Where more than this share of all rows would be judged, all are.
_ALL = 0.9
#: Where thinning is assumed, the first cut is where its end is expected to hold this share of what it may.
_CAREFUL = 0.7


def decide(goal: Goal, evidence: Evidence) -> Judge | Certificate | NotCertified:
    """The next step. Raises ValueError for a goal that contradicts itself, and for evidence that does not belong to it
    or lacks a proxy after the pilot."""
    _check(goal, evidence)
    course = _Course(goal, evidence)
    if course.standing.spent == goal.rows:
        return course.certificate(Basis.EVERYTHING)
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
    return course.cost()


def pilot_rows(rows: int) -> int:
    """How many rows the pilot judges: four times the square root, between 256 and 2,000."""
    return min(rows, max(256, min(2_000, round(4 * math.sqrt(rows)))))


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
        self._evidence = evidence
        self._step = len(evidence.groups)
        self.standing = Standing.of(goal, evidence)
        #: Rows of the places before this one may be accepted unjudged; fixed by the pilot, as the draws take it so.
        self._accept = 0
        if evidence.groups and evidence.proxy is not None:
            pilot = evidence.groups[0]
            scored = pilot.scores[~np.isnan(pilot.scores)]
            share = (
                (goal.top or 0) / goal.rows if goal.cut is None else float((scored >= goal.cut).sum()) / len(pilot.rows)
            )
            self._share = min(max(share, 0.5 / goal.rows), 1 - 0.5 / goal.rows)
            self._correlation = correlation(np.asarray(evidence.proxy, np.float64)[pilot.rows], pilot.scores)
            if goal.precision is not None and goal.precision < 1:
                self._accept = self._first_accepted()
        self._pool = self.standing.unjudged(self._accept)
        self._accepted = self.standing.unjudged(0, self._accept)
        returned = len(self.standing.best) + len(self._accepted)
        self._may_be_wrong = goal.may_be_wrong(returned) if len(self._accepted) else 0
        self._may_miss = goal.may_miss(returned - min(self._may_be_wrong, len(self._accepted)))

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
        if self._goal.assume is Assumption.THINNING and self._cost_by_thinning() <= self._split.rows:
            return self._by_thinning()
        return self._by_audit()

    def cost(self) -> int:
        """Rows judged in all, as far as can be told."""
        more = self._split.rows
        if self._goal.assume is Assumption.THINNING:
            more = min(more, self._cost_by_thinning())
        return min(self._goal.rows, self.standing.spent + more)

    def certificate(self, basis: Basis) -> Certificate:
        goal = self._goal
        if basis is Basis.EVERYTHING:
            return Certificate(basis, 1.0, 1.0, 1.0, self._accepted, self._facts())
        precision = 1.0 if goal.precision is None or not len(self._accepted) else goal.precision
        return Certificate(basis, goal.recall, precision, goal.confidence, self._accepted, self._facts())

    def _is_hopeless(self) -> bool:
        """Whether it can be told beforehand that (nearly) everything has to be judged."""
        goal = self._goal
        if goal.recall >= 1 or max(pilot_rows(goal.rows), goal.top or 0) > _ALL * goal.rows:
            return True
        return goal.assume is None and least_rows(goal) > _ALL * goal.rows

    def _by_audit(self) -> Judge | Certificate | NotCertified:
        """Without an assumption: down to where it is cheapest to go on by draws, until it is refuted that too many are
        left, and that too many of the accepted are wrong."""
        goal, standing = self._goal, self.standing
        needed = self._needed()
        wrong = self._needed_of_accepted()
        if needed == wrong == 0 and standing.has_enough:
            return self.certificate(Basis.AUDIT)
        if standing.spent + needed + wrong > _ALL * goal.rows:
            return self._all(goal.rows)
        split = self._split
        if split.accept < self._accept and len(rows := standing.unjudged(split.accept, self._accept)):
            return self._in_order(rows)
        depth = standing.depth(self._accept)
        if needed and split.depth > depth:
            return self._in_order(standing.unjudged(self._accept, _towards(split.depth, depth)))
        if needed or not standing.has_enough:
            return self._draw(How.AUDIT, self._pool, max(needed, 1), needed + wrong)
        return self._draw(How.ACCEPTED, self._accepted, wrong, wrong)

    def _by_thinning(self) -> Judge | Certificate | NotCertified:
        """Taking thinning for granted: deeper, until the lower half holds few enough, and the draws below it, scaled
        up, no more than may be missed (of few: none)."""
        goal, standing = self._goal, self.standing
        if standing.has_enough and self._needed() == self._needed_of_accepted() == 0:
            return self.certificate(Basis.AUDIT)
        depth = standing.depth(self._accept)
        target = self._thin_depth
        if depth < target and not standing.by_kind[How.PROXY]:
            return self._in_order(standing.unjudged(self._accept, target))
        below = goal.rows - depth
        drawn = standing.drawn[depth:]
        hits = int((drawn & standing.found[depth:]).sum())
        too_many = hits * below > self._may_miss * max(int(drawn.sum()), 1)
        if depth < goal.rows and (not standing.has_enough or self._in_tail(depth) > self._tail.most or too_many):
            least, most = math.ceil(depth * 1.1), math.ceil(depth * _DEEPER)
            return self._in_order(standing.unjudged(self._accept, min(max(target, least), most)))
        wanted = self._audit_wanted(depth) - int(drawn.sum())
        if wanted > 0:
            return self._draw(How.AUDIT, self._pool, wanted, wanted)
        if wrong := self._needed_of_accepted():
            return self._draw(How.ACCEPTED, self._accepted, wrong, wrong)
        return self.certificate(Basis.THINNING)

    def _cost_by_thinning(self) -> int:
        """Rows that would be judged from here."""
        standing = self.standing
        depth = max(self._thin_depth, standing.depth(self._accept))
        wanted = self._audit_wanted(depth) - int(standing.drawn[depth:].sum())
        return len(standing.unjudged(self._accept, depth)) + max(0, wanted) + self._needed_of_accepted()

    def _needed(self) -> int:
        return draws_needed(self.standing.audit, len(self._pool), self._may_miss, self._goal.each_confidence)

    def _needed_of_accepted(self) -> int:
        accepted, confidence = len(self._accepted), self._goal.each_confidence
        return draws_needed(self.standing.accepted, accepted, self._may_be_wrong, confidence) if accepted else 0

    @property
    def _tail(self) -> Tail:
        return tail(self._may_miss, self._goal.each_confidence)

    def _in_tail(self, depth: int) -> int:
        """Of the rows looked for, how many the end of the places before ``depth`` holds at most."""
        end = slice(depth // 2**self._tail.halvings, depth)
        return int((self.standing.found[end] | ~self.standing.judged[end]).sum())

    def _audit_wanted(self, depth: int) -> int:
        """Draws from below the cut: so many that as many of the rows looked for as were found would hardly be
        overlooked there (an assumption-free recall of one half), but no more than there are rows above it."""
        goal, found = self._goal, max(len(self.standing.best), 1)
        return min(depth, math.ceil((goal.rows - depth) * least_share(found - 1, goal.confidence)))

    @cached_property
    def _chances(self) -> NDArray[np.float64]:
        standing, goal = self.standing, self._goal
        judged, found = standing.judged, standing.found
        if goal.cut is None and not standing.by_kind[How.PROXY]:
            # The best of the pilot are no more than that.
            judged = found = np.zeros(goal.rows, bool)
        return chances(goal.rows, self._share, self._correlation, judged, found)

    @cached_property
    def _split(self) -> Split:
        goal, standing = self._goal, self.standing
        expected = Expectation.of(standing.judged, len(standing.best), self._chances)
        accept = np.unique(np.linspace(0, self._accept, 6).astype(np.int64))
        won = log_wealth(standing.audit, self._may_miss)
        return cheapest(goal, expected, accept, places(standing.depth(self._accept), goal.rows), won)

    def _first_accepted(self) -> int:
        """By the pilot alone, so that it stays what it is."""
        goal, pilot = self._goal, self._evidence.groups[0]
        of_pilot = Standing.of(goal, Evidence(self._evidence.proxy, [pilot]))
        likely = chances(goal.rows, self._share, self._correlation, of_pilot.judged, of_pilot.found)
        expected = Expectation.of(of_pilot.judged, len(of_pilot.best), likely)
        everywhere = places(0, goal.rows)
        return cheapest(goal, expected, everywhere, everywhere, 0.0).accept

    @cached_property
    def _thin_depth(self) -> int:
        """Where the end is expected to hold few enough."""
        rows = self._goal.rows
        behind = np.concatenate([np.zeros(1), np.cumsum(self._chances)])
        depth = np.arange(rows + 1)
        lower = behind[depth] - behind[depth // 2**self._tail.halvings]
        # The chances fall along the order: past the place with most at its end there are ever fewer.
        peak = int(np.argmax(lower))
        few = np.flatnonzero(lower[peak:] <= max(_CAREFUL / 2, _CAREFUL * self._tail.most))
        return min(rows, max(_LEAST_GROUP, peak + int(few[0]))) if len(few) else rows

    def _in_order(self, rows: Rows) -> Judge | NotCertified:
        """Rows in the proxy's order, and as many as keep an engine busy."""
        if len(rows) < _LEAST_GROUP:
            rest = self._pool[~np.isin(self._pool, rows)]
            rows = np.concatenate([rows, rest[: _LEAST_GROUP - len(rows)]])
        return self._within(Judge(How.PROXY, rows), self.standing.spent + len(rows))

    def _draw(self, how: How, pool: Rows, count: int, needed: int) -> Judge | NotCertified:
        """``count`` of the ``needed`` draws, or rather more where hits are to come; a first part of them where they are
        many, as they may teach something."""
        goal, standing = self._goal, self.standing
        draws, allowed = (
            (standing.audit, self._may_miss) if how is How.AUDIT else (standing.accepted, self._may_be_wrong)
        )
        before = len(draws.hit)
        left = np.array(draws.hit.sum() * len(pool) / max(before, 1))
        share = expected_share(left, np.array(allowed), goal.each_confidence, log_wealth(draws, allowed))
        likely = min(int(share * len(pool)), before // 2)
        count = min(len(pool), max(_LEAST_GROUP, min(max(count, likely), standing.spent)))
        step = Judge(how, self._drawn(pool, count), len(pool))
        return self._within(step, standing.spent + max(count, needed))

    def _within(self, step: Judge, total: int) -> Judge | NotCertified:
        """The step, where the budget allows for ``total`` rows judged in all."""
        if total > _ALL * self._goal.rows:
            return self._all(self._goal.rows)
        return step if self._goal.budget is None or total <= self._goal.budget else self._all(total)

    def _all(self, total: int) -> Judge | NotCertified:
        """All that is left, where the budget allows for that or it is wanted anyway."""
        goal = self._goal
        if goal.or_all or goal.budget is None or goal.rows <= goal.budget:
            return Judge(How.ALL, self.standing.unjudged())
        cost = total if not self._evidence.groups else max(total, self.cost())
        why = f"At most {goal.budget:,} rows may be judged, and at least {total:,} would have to be."
        return NotCertified(why, cost, least_rows(goal), self._facts())

    def _facts(self) -> Facts:
        goal, standing = self._goal, self.standing
        depth = standing.depth(self._accept)
        left = most_left(standing.audit, len(self._pool), goal.each_confidence)
        if goal.cut is None:
            recall = max(0.0, 1 - left / min(goal.top or 0, goal.rows))
        else:
            right = len(standing.best) + max(0, len(self._accepted) - self._may_be_wrong)
            recall = right / (right + left) if right + left else 1.0
        return Facts(
            best=standing.best,
            judged=standing.by_kind,
            failed=standing.failed,
            depth=depth,
            audited=len(standing.audit.hit),
            audit_hits=int(standing.audit.hit.sum()),
            may_miss=self._may_miss,
            most_left=left,
            assumption_free_recall=recall,
            log_wealth=log_wealth(standing.audit, self._may_miss),
            tail=self._tail,
            in_tail=self._in_tail(depth),
        )

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
    return min(target, max(_LEAST_GROUP, math.ceil(depth * _DEEPER), target // 2))


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
