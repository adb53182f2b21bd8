"""The circuit breaker, as the pure decision it is."""

from __future__ import annotations

from gristmill.engines.health import ServerHealth, after_failure, after_push_back, usable


def test_a_broken_connection_opens_the_circuit_at_once_and_a_failed_answer_only_after_five():
    assert not usable(after_failure(ServerHealth(), gone=True, now=10.0), 0, 10.1)
    health = ServerHealth()
    for failures in range(1, 5):
        health = after_failure(health, gone=False, now=10.0)
        assert usable(health, 7, 10.1), failures
    assert not usable(after_failure(health, gone=False, now=10.0), 0, 10.1)


def test_after_its_rest_an_endpoint_gets_one_request_at_a_time_until_one_succeeds():
    health = after_failure(ServerHealth(), gone=True, now=10.0)
    assert usable(health, 0, 10.6)
    assert not usable(health, 1, 10.6)
    assert usable(ServerHealth(), 100, 10.6)


def test_rests_double_with_every_failed_trial_up_to_half_a_minute():
    health, now, rests = ServerHealth(), 0.0, []
    for _ in range(9):
        health = after_failure(health, gone=True, now=now)
        rests.append(health.rest_until - now)
        now = health.rest_until
    assert rests == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_requests_that_fail_together_are_one_trip():
    health = ServerHealth()
    for _ in range(64):
        health = after_failure(health, gone=True, now=10.0)
    assert (health.trips, health.rest_until) == (1, 10.5)


def test_a_busy_endpoint_is_left_alone_as_long_as_it_says_and_is_not_on_trial_afterwards():
    health = after_push_back(ServerHealth(), 3.0, now=10.0)
    assert not usable(health, 0, 12.9)
    assert usable(health, 50, 13.0)
    assert after_push_back(ServerHealth(), 3600.0, now=10.0).rest_until == 40.0
    assert after_push_back(ServerHealth(), None, now=10.0).rest_until == 11.0
