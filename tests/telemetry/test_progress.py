from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.telemetry.progress import Counts, Progress, Rates


def counts(rows: int, cached: int | None = 0) -> Counts:
    return Counts(rows=rows, prompt_tokens=100 * rows, cached_tokens=cached, completion_tokens=10 * rows)


def test_nothing_is_known_before_something_is_measured() -> None:
    progress = Progress(100)
    assert progress.rates() == Rates()
    progress.observe(0, counts(0))
    assert progress.rates() == Rates()
    progress.observe(10, counts(0))
    assert progress.rates() == Rates()


def test_rates_are_what_was_done_over_the_time_it_took() -> None:
    progress = Progress(100)
    progress.observe(0, counts(0))
    progress.observe(10, counts(20, cached=500))
    assert progress.rates()[:4] == (2.0, 220.0, 0.25, 40.0)


def test_the_first_row_which_waits_for_the_shared_prompt_tells_no_time_left() -> None:
    progress = Progress(100)
    progress.observe(0, counts(0))
    progress.observe(10, counts(1))
    assert (progress.rates().rows_per_second, progress.rates().eta_seconds) == (0.1, None)
    progress.observe(11, counts(11))
    assert progress.rates().eta_seconds == pytest.approx(89)
    alone = Progress(1)
    alone.observe(0, counts(0))
    alone.observe(10, counts(1))
    assert alone.rates().eta_seconds == 0


def test_rows_that_were_done_before_this_process_count_for_the_end_but_not_for_the_speed() -> None:
    progress = Progress(100)
    progress.observe(0, counts(50))
    progress.observe(10, counts(60))
    assert progress.rates().rows_per_second == 1.0
    assert progress.rates().eta_seconds == 40.0


def test_the_reused_share_is_unknown_where_the_engine_does_not_report_it() -> None:
    progress = Progress(100)
    progress.observe(0, counts(0, None))
    progress.observe(1, counts(10, None))
    assert progress.rates().reused_share is None


def test_rates_look_back_over_the_window_only() -> None:
    progress = Progress(1_000_000, window=60)
    for second in range(1_000):
        progress.observe(second, counts(second))  # 1 row/s
    for second in range(1_000, 1_100):
        progress.observe(second, counts(1_000 + 10 * (second - 1_000)))  # 10 rows/s
    assert progress.rates().rows_per_second == pytest.approx(10)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 50)), max_size=300), st.integers(0, 1_000))
def test_rates_are_never_negative_and_memory_is_bounded(steps: list[tuple[float, int]], total: int) -> None:
    progress = Progress(total, window=10)
    now, rows = 0.0, 0
    for seconds, done in steps:
        now, rows = now + seconds, rows + done
        progress.observe(now, counts(rows))
        rates = progress.rates()
        assert all(value is None or value >= 0 for value in rates)
        assert len(progress._observations) <= 700


def test_the_time_left_is_told_within_15_percent_from_a_tenth_of_a_batch_with_mixed_answers_on() -> None:
    """5,000 rows, 64 at a time; answers take from 5 to 300 tokens, most of them few."""
    draw = random.Random(11)
    rows = 5_000
    free, ends = [0.0] * 64, []
    for _ in range(rows):
        end = heapq.heappop(free) + 0.5 + min(5 + draw.expovariate(1 / 60), 300) * 0.03
        heapq.heappush(free, end)
        ends.append(end)
    ends.sort()
    progress, done = Progress(rows), 0
    for second in range(int(ends[-1]) + 1):
        while done < rows and ends[done] <= second:
            done += 1
        progress.observe(second, counts(done))
        if 0.1 * rows <= done < rows:
            # At the very end, the longest of the last answers decides; nobody knows it before.
            left = ends[-1] - second
            within = 0.15 * left if done <= 0.8 * rows else 0.05 * ends[-1]
            assert progress.rates().eta_seconds == pytest.approx(left, abs=within)


def test_nine_of_ten_bands_hold_the_time_it_took() -> None:
    """Rows whose lengths are independent of each other, as after the planner's order they are within a group."""
    held = tried = 0
    for seed in range(120):
        chance = random.Random(seed)
        progress, now, band = Progress(1_500), 0.0, None
        for rows in range(1_501):
            progress.observe(now, counts(rows))
            if rows == 500:
                band = progress.rates()
                asked = now
            now += chance.expovariate(10)
        assert band is not None and band.eta_low_seconds is not None and band.eta_high_seconds is not None
        tried += 1
        held += band.eta_low_seconds <= now - asked <= band.eta_high_seconds
    assert 0.84 <= held / tried <= 0.96


def test_a_pace_that_varies_too_much_has_no_upper_end() -> None:
    progress = Progress(1_000_000)
    for second in range(0, 100, 5):
        progress.observe(second, counts(500 if second > 90 else 0))
    assert progress.rates().eta_high_seconds is None
    assert (progress.rates().eta_low_seconds or 0) > 0


def test_a_steady_pace_has_a_narrow_band_and_a_few_seconds_none() -> None:
    progress = Progress(1_000)
    progress.observe(0, counts(0))
    progress.observe(5, counts(5))
    assert progress.rates().eta_low_seconds is None
    for second in range(6, 101):
        progress.observe(second, counts(second))
    rates = progress.rates()
    assert rates.eta_low_seconds == pytest.approx(900) and rates.eta_high_seconds == pytest.approx(900)
