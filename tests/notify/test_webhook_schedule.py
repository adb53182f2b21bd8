"""When a webhook is tried again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.notify.schedule import FIRST_PAUSE, LONGEST_PAUSE, MAX_ATTEMPTS, RETRY_SECONDS, Next, decide


@pytest.mark.parametrize("answered", [200, 201, 204, 299])
def test_any_2xx_is_a_success(answered: int) -> None:
    assert decide(answered, 300, 1e9, None, 0.5) == Next("delivered")


@pytest.mark.parametrize("answered", [None, 100, 199, 300, 301, 302, 307, 308, 400, 404, 429, 500, 503, 599])
def test_everything_else_is_tried_again_also_redirects(answered: int | None) -> None:
    assert decide(answered, 1, 0, None, 0.0) == Next("pending", FIRST_PAUSE / 2)
    assert decide(answered, 1, 0, None, 1.0) == Next("pending", FIRST_PAUSE)
    assert decide(answered, 60, 1, None, 1.0) == Next("pending", LONGEST_PAUSE)


def test_gone_is_gone() -> None:
    assert decide(410, 1, 0, None, 0.0) == Next("dead")


@pytest.mark.parametrize(
    ("asked", "pause"), [(30.0, 30.0), (1.0, 5.0), (1e9, LONGEST_PAUSE), (math.inf, LONGEST_PAUSE), (math.nan, 5.0)]
)
def test_a_target_may_ask_for_a_longer_pause_but_not_for_ever(asked: float, pause: float) -> None:
    assert decide(429, 1, 0, asked, 1.0) == Next("pending", pause)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_it_is_tried_for_72_hours_and_then_dead(jitter: float) -> None:
    now, attempts = 0.0, 1
    while (following := decide(500, attempts, now, None, jitter)).status == "pending":
        assert following.pause > 0
        now += following.pause
        attempts += 1
    assert following.status == "dead" and now == RETRY_SECONDS == 72 * 3600
    assert 70 < attempts < MAX_ATTEMPTS


@given(
    st.none() | st.integers(0, 999),
    st.integers(1, 10**6),
    st.floats(-1e12, 1e12),
    st.none() | st.floats(),
    st.floats(0, 0.999),
)
def test_a_pause_is_never_long_whatever_the_clock_says(
    answered: int | None, attempts: int, age: float, retry_after: float | None, jitter: float
) -> None:
    following = decide(answered, attempts, age, retry_after, jitter)
    assert 0 <= following.pause <= LONGEST_PAUSE
    if attempts >= MAX_ATTEMPTS:
        assert following.status != "pending"
