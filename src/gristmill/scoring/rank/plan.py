"""What each step of a ranking would cost, by what its pilot took. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gristmill.scoring.rank.evidence import How
from gristmill.scoring.rank.goal import Assumption, Goal
from gristmill.scoring.rank.ranking import PilotDone
from gristmill.scoring.rank.rehearsal import rehearse
from gristmill.scoring.rank.wish import MOST_COMPARED
from gristmill.scoring.spearman import spearman
from gristmill.scoring.spent import Spent, spent_on


class PlannedStep(NamedTuple):
    """About so many ``rows``, ``seconds`` and ``tokens``; ``done``: it has been done, and is not done again."""

    name: str
    rows: int
    seconds: float
    tokens: float
    done: bool = False


class RankPlan(NamedTuple):
    """``judged``: rows that the judge is asked about in all; ``thinning``: the same with that assumption;
    ``everything`` for comparison."""

    steps: Sequence[PlannedStep]
    judged: int
    thinning: int
    everything: PlannedStep
    correlation: float | None


_NAMES = {
    How.PILOT: "pilot",
    How.PROXY: "judge what the proxy puts first",
    How.AUDIT: "audit of what it puts last",
    How.ACCEPTED: "audit of what it accepts",
    How.ALL: "judge all that are left",
}


def rank_plan(pilot: PilotDone) -> RankPlan:
    goal, judge, proxy = pilot.goal, spent_on(pilot.judge_batches), spent_on(pilot.proxy_batches)
    correlation = spearman(pilot.guesses, pilot.scores)
    above = int((pilot.scores >= goal.cut).sum()) if goal.cut is not None else 0
    share = (above + 0.5) / (len(pilot.scores) + 1)
    expected = rehearse(goal, correlation, share)
    steps = [_step(_NAMES[How.PILOT], expected[How.PILOT], judge, done=True)]
    if proxy.rows:
        steps.append(_step("proxy, of all rows", goal.rows - proxy.rows, proxy))
    later = (How.PROXY, How.AUDIT, How.ACCEPTED, How.ALL)
    steps += [_step(_NAMES[how], expected[how], judge) for how in later if expected[how]]
    if (rounds := _rounds(pilot, share, judge)) is not None:
        steps.append(rounds)
    return RankPlan(
        steps,
        sum(expected.values()),
        _thinning(goal, correlation, share),
        _step("every row instead", goal.rows, judge),
        correlation,
    )


def _rounds(pilot: PilotDone, share: float, spent: Spent) -> PlannedStep | None:
    """Where the rubric is computed once, a question about two rows takes as long as two about one."""
    rows = pilot.goal.top or round(share * pilot.goal.rows)
    if pilot.rounds is None or not 2 <= rows <= MOST_COMPARED:
        return None
    questions = pilot.rounds * (rows - rows % 2)
    step = _step(f"rounds of comparisons, questions about two of {rows:,} rows", questions, spent)
    return step._replace(seconds=2 * step.seconds, tokens=pilot.length * step.tokens)


def _thinning(goal: Goal, correlation: float | None, share: float) -> int:
    return sum(rehearse(goal._replace(assume=Assumption.THINNING), correlation, share).values())


def _step(name: str, rows: int, spent: Spent, done: bool = False) -> PlannedStep:
    asked = max(spent.rows, 1)
    return PlannedStep(name, rows, spent.seconds / asked * rows, (spent.prompt + spent.output) / asked * rows, done)
