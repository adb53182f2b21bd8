from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dispatch.outage import Outage
from gristmill.dispatch.retry import Retry, RetryPolicy, decide
from gristmill.engines.errors import ErrorKind

policies = st.builds(
    RetryPolicy, max_attempts=st.integers(1, 9), first_delay=st.floats(0.01, 5), max_delay=st.floats(5, 60)
)
jitters = st.floats(0, 1, exclude_max=True)
counts = st.integers(1, 10_000)
kinds = st.sampled_from(ErrorKind)
COUNTED = (ErrorKind.TIMEOUT, ErrorKind.INTERRUPTED)


@given(counts, counts, st.none() | st.floats(0, 600), jitters, policies)
def test_an_invalid_request_is_never_tried_again(
    failures: int, pauses: int, after: float | None, jitter: float, policy: RetryPolicy
) -> None:
    assert decide(ErrorKind.INVALID_REQUEST, failures, pauses, after, jitter, policy) is None


@given(st.sampled_from(COUNTED), counts, counts, jitters, policies)
def test_timeouts_and_interruptions_are_tried_again_until_the_attempts_are_used_up(
    kind: ErrorKind, failures: int, pauses: int, jitter: float, policy: RetryPolicy
) -> None:
    retry = decide(kind, failures, pauses, None, jitter, policy)
    assert (retry is None) == (failures >= policy.max_attempts)
    assert retry is None or retry.counted


@given(st.sampled_from((ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE)), counts, counts, jitters, policies)
def test_an_engine_that_asks_for_a_pause_never_costs_an_attempt(
    kind: ErrorKind, failures: int, pauses: int, jitter: float, policy: RetryPolicy
) -> None:
    retry = decide(kind, failures, pauses, None, jitter, policy)
    assert retry is not None and not retry.counted


@given(kinds, counts, counts, jitters, policies)
def test_a_delay_is_between_half_and_the_whole_of_the_doubling_delay(
    kind: ErrorKind, failures: int, pauses: int, jitter: float, policy: RetryPolicy
) -> None:
    retry = decide(kind, failures, pauses, None, jitter, policy)
    if retry is not None and kind is not ErrorKind.UNAVAILABLE:
        times = failures if retry.counted else pauses
        whole = min(policy.first_delay * 2.0 ** min(times - 1, 30), policy.max_delay)
        assert whole / 2 <= retry.delay <= whole


@given(counts, st.floats(0, 600), jitters, policies)
def test_an_engine_is_not_asked_sooner_than_it_said(
    pauses: int, after: float, jitter: float, policy: RetryPolicy
) -> None:
    retry = decide(ErrorKind.OVERLOADED, 1, pauses, after, jitter, policy)
    assert retry is not None and retry.delay >= after


def test_an_unavailable_engine_is_waited_for_together_not_row_by_row() -> None:
    assert decide(ErrorKind.UNAVAILABLE, 1, 1, 5.0, 0.5, RetryPolicy()) == Retry(0.0, counted=False)


class Clock:
    """An event loop's timers, rung by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.delays: list[float] = []
        self.ring = lambda: None
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)

    def call_later(self, delay: float, callback: object) -> None:
        self.delays.append(delay)
        self.ring = callback  # type: ignore[assignment]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_outages_that_follow_each_other_last_twice_as_long_up_to_a_limit(clock: Clock) -> None:
    outage = Outage(first_delay=1, max_delay=5)
    for _ in range(5):
        outage.report_failure("gone")
        assert outage.open
        clock.ring()
        assert not outage.open
    assert clock.delays == [1, 2, 4, 5, 5]


def test_failures_of_requests_that_were_in_flight_together_count_as_one(clock: Clock) -> None:
    outage = Outage(first_delay=1)
    for _ in range(64):
        outage.report_failure("gone")
    assert clock.delays == [1]


def test_a_success_ends_the_reason_and_the_doubling(clock: Clock) -> None:
    outage = Outage(first_delay=1)
    for _ in range(3):
        outage.report_failure("connection refused")
        clock.ring()
    assert outage.reason == "connection refused"
    outage.report_success()
    outage.report_failure("gone")
    assert clock.delays == [1, 2, 4, 1] and outage.reason == "gone"
