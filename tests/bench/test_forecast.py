"""The time a whole job would take, from the turns that were measured."""

from __future__ import annotations

import random

import pytest

from gristmill.bench.forecast import Pace, forecast, pace
from gristmill.bench.session import Outcome


def test_a_steady_speed_gives_an_exact_forecast():
    found = forecast([Pace(3.0, 0.5)] * 3, 170_001)
    assert (found.rows, found.seconds, found.low, found.high) == (170_001, 85_003.0, 85_003.0, 85_003.0)


def test_the_prefix_is_paid_for_once():
    slow_start = [Outcome(0, 10.0), *(Outcome(row, 10.0 + row) for row in range(1, 9))]
    assert pace(slow_start) == Pace(10.0, 1.0)
    assert forecast([pace(slow_start)], 1000).seconds == 10 + 999


def test_one_turn_gives_no_interval():
    found = forecast([Pace(1.0, 1.0)], 100)
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize("turns", [2, 3, 5, 20])
def test_nine_intervals_in_ten_hold_the_truth(turns):
    chosen = random.Random(turns)
    held = 0
    for _ in range(2000):
        found = forecast([Pace(0.0, chosen.gauss(1.0, 0.1)) for _ in range(turns)], 1001)
        held += found.low <= 1000 <= found.high
    assert 0.87 <= held / 2000 <= 0.93


def test_rows_that_end_together_are_one_pace():
    wave = [Outcome(0, 1.0), *(Outcome(row, 3.0) for row in range(1, 5))]
    assert pace(wave) == Pace(1.0, 0.5)
    assert pace([Outcome(0, 2.0)]) == Pace(2.0, 2.0)


def test_failures_take_no_time_and_count_for_nothing():
    assert pace([Outcome(0, 1.0), Outcome(1, 1.1, error="broken"), Outcome(2, 3.0)]) == Pace(1.0, 2.0)
    assert pace([Outcome(0, 1.0, error="broken")]) is None
    assert forecast([], 1000) is None


def test_every_slot_pays_for_the_prefix_before_rows_have_their_pace():
    ends = [10.0, 10.0, 11.0, 11.0, 12.0, 12.0]
    found = pace([Outcome(row, end) for row, end in enumerate(ends)], skipped=2)
    assert found == Pace(10.0, 0.5, 2)
    assert forecast([found], 102).seconds == 10 + 50
