"""What a ranking promises holds whatever the proxy; 1,000 replays of every case: benchmarks/rank_replays."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="pip install 'gristmill[score]' to run this")
pytest.importorskip("scipy", reason="pip install 'gristmill[score]' to run this")

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "rank_replays"))
from replays import Table, replay  # noqa: E402

from gristmill.scoring.rank.course import decide, forecast, least_rows  # noqa: E402
from gristmill.scoring.rank.ended import Basis, Certificate, NotCertified  # noqa: E402
from gristmill.scoring.rank.evidence import Evidence, How, Judge, Judged  # noqa: E402
from gristmill.scoring.rank.goal import Assumption, Goal, pilot_rows  # noqa: E402
from gristmill.scoring.statistics.betting_test import Draws, draws_needed, log_wealth, most_left  # noqa: E402
from gristmill.scoring.statistics.least_rows import least_share  # noqa: E402
from gristmill.scoring.statistics.thinning import tail  # noqa: E402

ROWS = 3_000
TOP = Goal(ROWS, top=100, recall=0.9)
REPLAYS = 200
#: Of 200 with probability 0.05 each, more are missed once in 250 times.
ALLOWED = 18


def table(likeness: float, seed: int = 0, rows: int = ROWS) -> Table:
    draw = np.random.default_rng(seed)
    proxy = draw.normal(size=rows)
    return given(likeness * proxy + (1 - likeness**2) ** 0.5 * draw.normal(size=rows), proxy)


def given(score, proxy) -> Table:
    return Table(np.asarray(score, float), lambda rows, scores: np.asarray(proxy, float))


def nearly_perfect(hidden: int) -> Table:
    """So many of the best are at the proxy's bottom, and everything else is as the proxy says."""
    score = np.arange(ROWS, 0, -1.0)
    proxy = score.copy()
    score[-hidden:] += 2 * ROWS
    return given(score, proxy)


def missed_among(left: int, pool: int, may_be_left: int, seed: int) -> bool:
    """Whether draws one by one, until the test passes, leave more than may be left."""
    order = np.random.default_rng(seed).permutation(pool)
    hit = order < left
    sizes = pool - np.arange(pool)
    drawn = 0
    while needed := draws_needed(Draws(hit[:drawn], sizes[:drawn]), pool - drawn, may_be_left, 0.95):
        later = np.flatnonzero(hit[drawn : drawn + needed])
        drawn += int(later[0]) + 1 if len(later) else needed
    return left - int(hit[:drawn].sum()) > may_be_left


@pytest.mark.parametrize("left", [6, 7, 10])
def test_too_many_left_are_overlooked_as_rarely_as_promised(left: int) -> None:
    assert sum(missed_among(left, 1_500, 5, seed) for seed in range(REPLAYS)) <= ALLOWED


def test_a_test_whose_bound_is_wrong_fails_the_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """These replays would notice: the same, but twice as many taken to be needed for a miss to count."""
    wrong = draws_needed

    def broken(draws, pool, left, confidence):
        return wrong(draws, pool, 2 * left + 1, confidence)

    monkeypatch.setitem(globals(), "draws_needed", broken)
    assert sum(missed_among(6, 1_500, 5, seed) for seed in range(REPLAYS)) > 2 * ALLOWED


def test_what_is_said_to_be_left_at_most_holds_at_all_times_together() -> None:
    broken = 0
    for seed in range(REPLAYS):
        hit = np.random.default_rng(seed).permutation(400) < 20
        sizes = 400 - np.arange(400)
        counts = [40, 80, 120, 200, 280, 360]
        broken += any(most_left(Draws(hit[:n], sizes[:n]), 400 - n, 0.95) < 20 - hit[:n].sum() for n in counts)
    assert broken <= ALLOWED


def test_a_hit_more_never_makes_surer() -> None:
    draw = np.random.default_rng(1)
    for _ in range(50):
        hit = draw.random(80) < 0.1
        more = hit | (draw.random(80) < 0.05)
        pools = np.sort(draw.choice(np.arange(100, 400), 80, replace=False))[::-1]
        assert log_wealth(Draws(more, pools), 6) <= log_wealth(Draws(hit, pools), 6) + 1e-9


def test_draws_needed_are_just_enough() -> None:
    none = Draws(np.zeros(0, bool), np.zeros(0, int))
    needed = draws_needed(none, 1_000, 5, 0.95)
    assert least_share(5, 0.95) * 1_000 < needed < 1.15 * least_share(5, 0.95) * 1_000
    for count, left in ((needed, 5), (needed - 1, 6)):
        assert most_left(Draws(np.zeros(count, bool), 1_000 - np.arange(count)), 1_000 - count, 0.95) == left
    assert draws_needed(none, 5, 5, 0.95) == 0


def test_no_method_can_promise_with_less() -> None:
    assert least_rows(Goal(170_000, top=100)) == pytest.approx(0.393 * 170_000, rel=0.001)
    assert least_share(0, 0.95) == pytest.approx(0.95)


@pytest.mark.parametrize("likeness", [0.95, 0.5, 0.0, -0.8])
def test_the_recall_promised_without_an_assumption_holds(likeness: float) -> None:
    missed = 0
    for seed in range(25):
        found = replay(TOP._replace(seed=seed), table(likeness, seed))
        missed += found.recall < TOP.recall - 1e-9
        assert found.judged <= ROWS and isinstance(found.ended, Certificate)
    assert missed <= 5


def test_what_the_proxy_hides_is_found_or_nothing_is_promised() -> None:
    found = [replay(TOP._replace(seed=seed), nearly_perfect(11)) for seed in range(25)]
    assert sum(each.recall < TOP.recall - 1e-9 for each in found) <= 5


def test_thinning_is_no_promise_where_it_does_not_hold_and_says_so() -> None:
    goal = Goal(20_000, top=100, assume=Assumption.THINNING)
    score = np.arange(20_000, 0, -1.0)
    proxy = score.copy()
    score[-6:] += 100_000
    found = replay(goal, given(score, proxy))
    assert found.recall == pytest.approx(0.94)
    assert isinstance(found.ended, Certificate) and found.ended.basis is Basis.THINNING
    assert found.ended.facts.assumption_free_recall < 0.94


def test_thinning_costs_far_less_where_the_proxy_is_good() -> None:
    for seed in range(4):
        goal = Goal(20_000, top=100, seed=seed)
        made = table(0.95, seed, 20_000)
        cheap, strict = replay(goal._replace(assume=Assumption.THINNING), made), replay(goal, made)
        assert cheap.judged < 0.2 * 20_000 < strict.judged
        assert cheap.recall >= 0.95 and strict.recall >= 0.95


def test_a_tail_that_chance_explains_is_not_taken_for_a_promise() -> None:
    """Whatever is expected below the cut, seeing few enough above and leaving too many is as rare as promised."""
    draw = np.random.default_rng(0)
    for may_be_left in (0, 1, 5, 20):
        halvings, most = tail(may_be_left, 0.95)
        for expected in np.linspace(0.1, 2 * may_be_left + 3, 12):
            above = draw.poisson((2**halvings - 1) * expected, 20_000)
            wrong = (above <= most) & (draw.poisson(expected, 20_000) > may_be_left)
            assert wrong.mean() <= 0.05 + 0.006


@pytest.mark.parametrize("likeness", [0.95, 0.7, 0.0])
def test_recall_and_precision_at_a_cut_hold_together(likeness: float) -> None:
    missed = accepted = 0
    for seed in range(20):
        goal = Goal(ROWS, cut=1.0, recall=0.9, precision=0.9, seed=seed)
        found = replay(goal, table(likeness, seed))
        missed += found.recall < 0.9 - 1e-9 or found.precision < 0.9 - 1e-9
        accepted += len(found.ended.accepted)
        assert found.judged <= ROWS
    assert missed <= 4
    assert accepted > 0 or likeness < 0.9


@pytest.mark.parametrize("assume", [None, Assumption.THINNING])
@pytest.mark.parametrize(
    "score, proxy",
    [
        ([1.0], [0.0]),
        (np.zeros(900), np.zeros(900)),
        (np.arange(900) % 3, np.arange(900)),
        (np.arange(900), np.full(900, np.nan)),
        (np.arange(900), np.zeros(900)),
        (np.arange(900), -np.arange(900)),
        (np.where(np.arange(900) % 2, np.nan, 1.0), np.arange(900)),
        (np.full(900, np.nan), np.arange(900)),
        (np.repeat(np.arange(30), 30), np.repeat(np.arange(30), 30)),
        (np.r_[np.full(5, np.inf), np.arange(895)], np.r_[np.full(5, np.inf), np.arange(895)]),
    ],
)
def test_every_table_ends_and_no_row_is_judged_twice(score, proxy, assume) -> None:
    made = given(score, proxy)
    for goal in (
        Goal(len(score), top=10),
        Goal(len(score), top=1),
        Goal(len(score), cut=2.0, recall=0.9, precision=0.9),
    ):
        found = replay(goal._replace(assume=assume), made)
        assert found.judged <= len(score) and found.steps < 60
        if found.ended.basis is Basis.EVERYTHING:
            assert (found.ended.recall, found.ended.confidence) == (1.0, 1.0)


def test_rows_that_failed_at_the_judge_are_told_and_never_among_the_best() -> None:
    score = np.arange(ROWS, 0, -1.0)
    score[::7] = np.nan
    found = replay(TOP, given(score, np.arange(ROWS, 0, -1.0)))
    assert found.ended.facts.failed > 0
    assert not np.isnan(score[found.ended.facts.best]).any()


@pytest.mark.parametrize(("assume", "known"), [(None, How.PILOT), (None, How.PROXY), (Assumption.THINNING, How.PILOT)])
def test_rows_that_got_no_answer_prove_nothing(assume: Assumption | None, known: How) -> None:
    """The judge is away after the pilot, or once draws begin: what was not answered may be any of the best."""
    goal, made = TOP._replace(assume=assume), table(0.95)
    groups: list[Judged] = []
    while isinstance(step := decide(goal, Evidence(made.proxy(None, None) if groups else None, groups)), Judge):
        away = step.how is not How.PILOT and (step.how is not known)
        scores = np.full(len(step.rows), np.nan) if away else made.score[step.rows]
        groups.append(Judged(step.how, step.rows, scores, step.pool, step.rows if away else step.rows[:0]))
    assert isinstance(step, NotCertified) and "got no answer" in step.why


def test_more_wanted_than_there_are_rows_is_everything() -> None:
    found = replay(Goal(500, top=600), table(0.9, rows=500))
    assert len(found.ended.facts.best) == 500 and found.ended.basis is Basis.EVERYTHING and found.steps == 1


def test_a_recall_of_one_is_everything_at_once_and_said_beforehand() -> None:
    goal = TOP._replace(recall=1.0)
    assert forecast(goal, Evidence(None, [])) == ROWS
    step = decide(goal, Evidence(None, []))
    assert isinstance(step, Judge) and step.how is How.ALL and len(step.rows) == ROWS


def test_a_budget_that_cannot_do_is_told_before_anything_is_spent() -> None:
    goal = Goal(170_000, top=100, budget=10_000)
    ended = decide(goal, Evidence(None, []))
    assert isinstance(ended, NotCertified) and ended.would_cost >= ended.least == least_rows(goal)


def test_a_budget_is_kept_and_raised_without_judging_again() -> None:
    goal, made = Goal(20_000, top=100, budget=9_000, recall=0.9), table(0.8, rows=20_000)
    groups: list[Judged] = []
    while isinstance(step := decide(goal, Evidence(None if not groups else made.proxy(None, None), groups)), Judge):
        groups.append(Judged(step.how, step.rows, made.score[step.rows], step.pool))
    assert isinstance(step, NotCertified) and sum(len(each.rows) for each in groups) <= 9_000 < step.would_cost
    proxy = made.proxy(None, None)
    undisturbed = replay(goal._replace(budget=None), made)
    while isinstance(step := decide(goal._replace(budget=None), Evidence(proxy, groups)), Judge):
        groups.append(Judged(step.how, step.rows, made.score[step.rows], step.pool))
    assert step.facts.best.tolist() == undisturbed.ended.facts.best.tolist()
    assert sum(len(each.rows) for each in groups) == undisturbed.judged


def test_the_same_evidence_leads_to_the_same_step_and_another_seed_to_another() -> None:
    one, same, other = (decide(TOP._replace(seed=seed), Evidence(None, [])) for seed in (1, 1, 2))
    assert one.rows.tolist() == same.rows.tolist() != other.rows.tolist()
    assert len(one.rows) == pilot_rows(ROWS) == one.pool - (ROWS - len(one.rows))


@pytest.mark.parametrize(
    "goal",
    [
        Goal(10),
        Goal(10, top=1, cut=1.0),
        Goal(10, top=0),
        Goal(10, top=1, recall=0),
        Goal(10, top=1, confidence=1.0),
        Goal(10, top=1, precision=0.9),
        Goal(10, top=1, seed=-1),
    ],
)
def test_a_goal_that_contradicts_itself_is_refused(goal: Goal) -> None:
    with pytest.raises(ValueError):
        decide(goal, Evidence(None, []))


def test_evidence_of_another_table_is_refused() -> None:
    step = decide(TOP, Evidence(None, []))
    twice = Judged(step.how, np.r_[step.rows, step.rows[:1]], np.zeros(len(step.rows) + 1), step.pool)
    with pytest.raises(ValueError, match="judged twice"):
        decide(TOP, Evidence(np.zeros(ROWS), [twice]))
    with pytest.raises(ValueError, match="a score for each row"):
        decide(TOP, Evidence(np.zeros(5), []))
