"""From a pilot to the time of the whole job."""

from __future__ import annotations

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.planning.estimate import Pilot, PilotRow, choose_rows, estimate
from gristmill.planning.job_plan import Duplicates, JobPlan


def plan_of(rows: int, group_ends: list[int] = ()) -> JobPlan:
    empty = Duplicates(array("q"), array("q"))
    order = array("q", range(1, rows + 1))
    return JobPlan(rows, rows * 4000, rows * 200, 4000, 0, 0, [], order, array("q", group_ends), empty)


def row(line=1, own=50, output=16, cached=True):
    return PilotRow(line, 4000, 950 + own, 950 if cached else None, output)


@given(st.integers(2, 500), st.integers(2, 60), st.lists(st.integers(2, 40), max_size=8))
def test_the_rows_of_a_pilot_are_spread_over_the_job_and_led_by_their_groups(rows, count, sizes):
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes)) if sum(sizes[: i + 1]) <= rows]
    plan = plan_of(rows, ends)
    leaders, chosen = choose_rows(plan, count)
    everything = leaders + chosen
    assert len(set(everything)) == len(everything) and set(everything) <= set(plan.order)
    assert min(count, rows) - len(leaders) <= len(chosen) <= count
    firsts = [1, *(end + 1 for end in ends)][: len(ends)]
    assert set(leaders) <= set(firsts)
    # No more than a stride without a row of the pilot.
    gaps = [after - before for before, after in zip(sorted(everything), sorted(everything)[1:], strict=False)]
    assert max(gaps, default=0) <= 2 * max(rows / count, 1) + 1


def test_each_group_takes_a_leader_and_every_other_row_the_average():
    pilot = Pilot([row(), row()], 6.0, [row() for _ in range(40)], 4.0)
    found = estimate(plan_of(1000, [200, 400, 600, 800, 1000]), pilot)
    assert found.seconds == pytest.approx(5 * 3.0 + 995 * 0.1)
    assert found.low == pytest.approx(0.9 * found.seconds) and found.high == pytest.approx(1.1 * found.seconds)
    assert (found.bytes_per_token, found.output_tokens) == (4.0, 16_000)
    assert found.reused_share == pytest.approx(0.95)


def test_rows_that_differ_much_widen_the_interval():
    same, mixed = ([row(output=length) for length in lengths] for lengths in ([100] * 50, [10, 190] * 25))
    even, uneven = (estimate(plan_of(1000, [1000]), Pilot([row()], 1.0, rows, 5.0)) for rows in (same, mixed))
    assert even.seconds == uneven.seconds
    assert uneven.high - uneven.low > 1.3 * (even.high - even.low)


def test_where_cached_tokens_are_not_reported_nothing_is_claimed_about_reuse():
    assert estimate(plan_of(100), Pilot([], 0, [row(cached=False)] * 10, 1.0)).reused_share is None


def test_the_interval_holds_the_truth_nine_times_of_ten_when_only_answer_lengths_vary():
    """Costs proportional to tokens, lengths drawn from a skewed distribution: the part that is chance."""
    draw = random.Random(7)
    held = 0
    for _ in range(300):
        lengths = [min(int(draw.expovariate(1 / 60)) + 5, 300) for _ in range(2000)]
        truth = sum(50 + length for length in lengths) * 1e-3
        pilot = [row(line, output=lengths[line]) for line in range(0, 2000, 40)]
        seconds = sum(50 + each.output_tokens for each in pilot) * 1e-3
        found = estimate(plan_of(2000), Pilot([], 0, pilot, seconds))
        held += found.low <= truth <= found.high
    assert held >= 255
