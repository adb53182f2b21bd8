"""Which endpoint a request goes to, as the pure decision it is."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from openai_stand_in import chat, complete

from gristmill.engines.openai_compatible.routing import (
    Candidate,
    Holds,
    Prefix,
    RecentPrefixes,
    by_prefix,
    least_busy,
    prefix_of,
)
from gristmill.wire.chat import ChatCompletionRequest, Message

IDLE = [Candidate(f"http://{name}", 0) for name in "abcd"]


def prefix(number: int, size: int = 1000) -> Prefix:
    return Prefix(number.to_bytes(16, "big"), size)


def rubric(system: str, user: str) -> ChatCompletionRequest:
    return ChatCompletionRequest([Message("system", system), Message("user", user)], "m")


def test_the_prefix_is_all_but_the_last_message():
    assert prefix_of(rubric("a", "1")) == prefix_of(rubric("a", "2")) != prefix_of(rubric("b", "1"))


def test_without_leading_messages_it_is_the_beginning_of_the_text():
    assert prefix_of(chat("x" * 2000 + "1")) == prefix_of(chat("x" * 2000 + "2")) != prefix_of(chat("y" * 2000))
    assert prefix_of(complete()).size == len("Water is")


def test_a_prefix_goes_to_the_same_idle_endpoint_whatever_their_order():
    for number in range(50):
        assert by_prefix(prefix(number), IDLE) == by_prefix(prefix(number), IDLE[::-1])


def test_prefixes_spread_over_all_endpoints():
    shares = Counter(by_prefix(prefix(number), IDLE).name for number in range(400))
    assert len(shares) == 4 and min(shares.values()) > 60


def test_when_an_endpoint_goes_only_its_own_prefixes_move():
    for number in range(100):
        before, after = by_prefix(prefix(number), IDLE), by_prefix(prefix(number), IDLE[1:])
        assert after == before or before == IDLE[0]


@given(st.lists(st.integers(0, 200), min_size=1, max_size=8), st.integers(0, 2**64))
def test_no_endpoint_gets_much_more_than_its_share(loads, number):
    candidates = [Candidate(f"http://{index}", load) for index, load in enumerate(loads)]
    chosen = by_prefix(prefix(number), candidates)
    assert chosen.load <= 1.25 * (sum(loads) + 1) / len(loads)


def test_the_least_busy_is_the_one_with_the_fewest_in_flight():
    assert least_busy([Candidate("a", 3), Candidate("b", 1), Candidate("c", 2)]).name == "b"


def test_prefixes_exceed_what_is_held_only_when_there_are_more_of_them():
    recent = RecentPrefixes()
    for number in [0, 1, 0, 1, 0, 1]:
        recent.note(prefix(number))
    assert not recent.exceed(Holds(prefixes=2)) and recent.exceed(Holds(prefixes=1))
    assert not recent.exceed(Holds(tokens=500)) and recent.exceed(Holds(tokens=499))
    assert not recent.exceed(Holds())


def test_prefixes_of_long_ago_are_forgotten():
    recent = RecentPrefixes()
    for number in range(50):
        recent.note(prefix(number))
    for _ in range(1000):
        recent.note(prefix(7))
    assert not recent.exceed(Holds(prefixes=1)) and not recent.exceed(Holds(tokens=250))
