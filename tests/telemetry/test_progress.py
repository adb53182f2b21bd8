from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.telemetry.progress import Counts, Progress, Rates


def counts(rows: int, cached: int | None = 0) -> Counts:
    return Counts(rows=rows, prompt_tokens=100 * rows, cached_tokens=cached, completion_tokens=10 * rows)


def test_nothing_is_known_before_something_is_measured() -> None:
    progress = Progress(100)
    assert progress.rates() == Rates(None, None, None, None)
    progress.observe(0, counts(0))
    assert progress.rates() == Rates(None, None, None, None)
    progress.observe(10, counts(0))
    assert progress.rates() == Rates(None, None, None, None)


def test_rates_are_what_was_done_over_the_time_it_took() -> None:
    progress = Progress(100)
    progress.observe(0, counts(0))
    progress.observe(10, counts(20, cached=500))
    assert progress.rates() == Rates(2.0, 220.0, 0.25, 40.0)


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
