"""What the evidence of a ranking comes to: what each way still needs before it may end, and what that costs. Pure."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gristmill.scoring.rank.ended import Facts
from gristmill.scoring.rank.evidence import Evidence, How
from gristmill.scoring.rank.expense import Expectation, Split, cheapest, places
from gristmill.scoring.rank.goal import Assumption, Goal
from gristmill.scoring.rank.outlook import chances, correlation
from gristmill.scoring.rank.standing import Standing
from gristmill.scoring.statistics.betting_test import draws_needed, log_wealth, most_left
from gristmill.scoring.statistics.least_rows import least_share
from gristmill.scoring.statistics.thinning import Tail, tail

#: Rows of a group at least, so that an engine is kept busy.
LEAST_GROUP = 64
#: Where thinning is assumed, the first cut is where its end is expected to hold this share of what it may.
_CAREFUL = 0.7


class Reckoning:
    """``accept``: rows of the places before it may be accepted unjudged, ``accepted`` are those of them that are not
    judged, and ``pool`` are all other unjudged rows. ``may_miss`` of the rows looked for may be among these, and
    ``may_be_wrong`` of those."""

    def __init__(self, goal: Goal, evidence: Evidence) -> None:
        self._goal = goal
        self._evidence = evidence
        self.standing = Standing.of(goal, evidence)
        # Fixed by the pilot, as the draws take it so.
        self.accept = 0
        if evidence.groups and evidence.proxy is not None:
            pilot = evidence.groups[0]
            scored = pilot.scores[~np.isnan(pilot.scores)]
            share = (
                (goal.top or 0) / goal.rows if goal.cut is None else float((scored >= goal.cut).sum()) / len(pilot.rows)
            )
            self._share = min(max(share, 0.5 / goal.rows), 1 - 0.5 / goal.rows)
            self._correlation = correlation(np.asarray(evidence.proxy, np.float64)[pilot.rows], pilot.scores)
            if goal.precision is not None and goal.precision < 1:
                self.accept = self._first_accepted()
        self.pool = self.standing.unjudged(self.accept)
        self.accepted = self.standing.unjudged(0, self.accept)
        returned = len(self.standing.best) + len(self.accepted)
        self.may_be_wrong = goal.may_be_wrong(returned) if len(self.accepted) else 0
        self.may_miss = goal.may_miss(returned - min(self.may_be_wrong, len(self.accepted)))

    def cost(self) -> int:
        """Rows judged in all, as far as can be told."""
        more = self.split.rows
        if self._goal.assume is Assumption.THINNING:
            more = min(more, self.cost_by_thinning())
        return min(self._goal.rows, self.standing.spent + more)

    def cost_by_thinning(self) -> int:
        """Rows that would be judged from here."""
        standing = self.standing
        depth = max(self.thin_depth, standing.depth(self.accept))
        wanted = self.audit_wanted(depth) - int(standing.drawn[depth:].sum())
        return len(standing.unjudged(self.accept, depth)) + max(0, wanted) + self.needed_of_accepted()

    def needed(self) -> int:
        return draws_needed(self.standing.audit, len(self.pool), self.may_miss, self._goal.each_confidence)

    def needed_of_accepted(self) -> int:
        accepted, confidence = len(self.accepted), self._goal.each_confidence
        return draws_needed(self.standing.accepted, accepted, self.may_be_wrong, confidence) if accepted else 0

    @property
    def tail(self) -> Tail:
        return tail(self.may_miss, self._goal.each_confidence)

    def in_tail(self, depth: int) -> int:
        """Of the rows looked for, how many the end of the places before ``depth`` holds at most."""
        end = slice(depth // 2**self.tail.halvings, depth)
        return int((self.standing.found[end] | ~self.standing.judged[end]).sum())

    def audit_wanted(self, depth: int) -> int:
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
    def split(self) -> Split:
        goal, standing = self._goal, self.standing
        expected = Expectation.of(standing.judged, len(standing.best), self._chances)
        accept = np.unique(np.linspace(0, self.accept, 6).astype(np.int64))
        won = log_wealth(standing.audit, self.may_miss)
        return cheapest(goal, expected, accept, places(standing.depth(self.accept), goal.rows), won)

    def _first_accepted(self) -> int:
        """By the pilot alone, so that it stays what it is."""
        goal, pilot = self._goal, self._evidence.groups[0]
        of_pilot = Standing.of(goal, Evidence(self._evidence.proxy, [pilot]))
        likely = chances(goal.rows, self._share, self._correlation, of_pilot.judged, of_pilot.found)
        expected = Expectation.of(of_pilot.judged, len(of_pilot.best), likely)
        everywhere = places(0, goal.rows)
        return cheapest(goal, expected, everywhere, everywhere, 0.0).accept

    @cached_property
    def thin_depth(self) -> int:
        """Where the end is expected to hold few enough."""
        rows = self._goal.rows
        behind = np.concatenate([np.zeros(1), np.cumsum(self._chances)])
        depth = np.arange(rows + 1)
        lower = behind[depth] - behind[depth // 2**self.tail.halvings]
        # The chances fall along the order: past the place with most at its end there are ever fewer.
        peak = int(np.argmax(lower))
        few = np.flatnonzero(lower[peak:] <= max(_CAREFUL / 2, _CAREFUL * self.tail.most))
        return min(rows, max(LEAST_GROUP, peak + int(few[0]))) if len(few) else rows

    def facts(self) -> Facts:
        goal, standing = self._goal, self.standing
        depth = standing.depth(self.accept)
        left = most_left(standing.audit, len(self.pool), goal.each_confidence)
        if goal.cut is None:
            recall = max(0.0, 1 - left / min(goal.top or 0, goal.rows))
        else:
            right = len(standing.best) + max(0, len(self.accepted) - self.may_be_wrong)
            recall = right / (right + left) if right + left else 1.0
        return Facts(
            best=standing.best,
            judged=standing.by_kind,
            failed=standing.failed,
            depth=depth,
            audited=len(standing.audit.hit),
            audit_hits=int(standing.audit.hit.sum()),
            may_miss=self.may_miss,
            most_left=left,
            assumption_free_recall=recall,
            log_wealth=log_wealth(standing.audit, self.may_miss),
            tail=self.tail,
            in_tail=self.in_tail(depth),
        )
