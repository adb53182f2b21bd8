from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dispatch.slots import Place, Slots
from gristmill.dispatch.tuner import Tuner
from gristmill.dispatch.window import Observation, Window, decide

observations = st.builds(
    Observation,
    seconds=st.floats(0, 100),
    completed=st.integers(0, 1000),
    push_backs=st.integers(0, 3),
    full=st.booleans(),
    tokens=st.floats(0, 1e9),
)


@given(st.lists(observations, max_size=60), st.integers(1, 300))
def test_the_window_stays_between_one_and_the_maximum(seen: list[Observation], maximum: int) -> None:
    window = Window(min(4, maximum))
    for observation in seen:
        window = decide(window, observation, maximum)
        assert 1 <= window.limit <= maximum


def test_a_push_back_shrinks_the_window_and_ends_the_doubling() -> None:
    window = decide(Window(20), Observation(1, 40, 3, True, 4000), 64)
    assert window.limit == 14
    assert not window.doubling


def test_a_window_that_was_never_full_is_left_alone() -> None:
    window = Window(8, best_rate=5.0)
    assert decide(window, Observation(1, 2, 0, False, 200), 64) == window


@pytest.mark.parametrize("capacity", [1, 3, 8, 30, 100])
def test_the_window_settles_where_the_engine_is_busy_and_no_longer(capacity: int) -> None:
    """An engine that answers up to ``capacity`` requests side by side, one second each."""
    now = 0.0
    tuner = Tuner(256, lambda: now)
    limits = []
    for _ in range(60):
        limit = tuner.window.limit
        limits.append(limit)
        for _ in range(2 * limit):
            now += 1 / min(limit, capacity)
            tuner.note(pushed_back=False, full=True, tokens=100)
    settled = limits[20:]
    assert min(settled) >= capacity
    assert max(settled) <= 4 * capacity + 4


@pytest.mark.parametrize(("rate", "limit"), [(2000, 128), (1890, 96), (1810, 64)])
def test_a_doubling_is_kept_or_taken_back_by_half_or_whole_as_it_helped(rate: int, limit: int) -> None:
    """From 64 in flight, which gave 1,800 tokens a second."""
    window = decide(Window(128, best_rate=1800.0, best_limit=64), Observation(1, rate // 10, 0, True, rate), 128)
    assert (window.limit, window.doubling) == (limit, limit == 128)


def test_one_time_out_among_many_answers_is_no_reason_for_a_smaller_window() -> None:
    window = Window(64, doubling=False, best_rate=1000.0, best_limit=64)
    for _ in range(20):
        window = decide(window, Observation(1, 127, 1, True, 1000), 256)
        assert window.limit >= 64
    assert decide(window, Observation(1, 120, 8, True, 1000), 256).limit < window.limit


def test_rows_that_take_ten_times_the_tokens_are_no_reason_for_a_smaller_window() -> None:
    """The engine computes as many tokens a second as before, so a tenth of the rows."""
    window = Window(64, doubling=False, best_rate=10_000.0, best_limit=64)
    assert decide(window, Observation(1, 100, 0, True, 10_000), 256).limit >= 64
    assert decide(window, Observation(10, 100, 0, True, 100_000), 256).limit >= 64
    assert decide(window, Observation(1, 100, 0, True, 5_000), 256).limit < 64


async def test_slots_never_exceed_their_limit_and_serve_in_turn() -> None:
    slots, served = Slots(2), list[int]()

    async def use(number: int) -> None:
        async with slots.place():
            assert slots.in_flight <= 2
            served.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(number) for number in range(20)))
    assert served == list(range(20))
    assert slots.in_flight == 0


async def _enter(place: AbstractAsyncContextManager[Place]) -> None:
    await place.__aenter__()


async def test_a_cancelled_waiter_gives_its_place_to_the_next() -> None:
    slots = Slots(1)
    held = slots.place()
    await held.__aenter__()
    places = [slots.place() for _ in range(2)]
    first, second = (asyncio.create_task(_enter(place)) for place in places)
    await asyncio.sleep(0)
    await held.__aexit__(None, None, None)
    first.cancel()
    await second
    assert first.cancelled() or first.done()
    assert slots.in_flight == 1


async def test_growing_admits_who_waits_and_shrinking_interrupts_nobody() -> None:
    slots = Slots(1)
    places = [slots.place() for _ in range(4)]
    await places[0].__aenter__()
    waiting = [asyncio.create_task(_enter(place)) for place in places[1:]]
    await asyncio.sleep(0)
    slots.resize(3)
    await asyncio.gather(*waiting[:2])
    slots.resize(1)
    assert slots.in_flight == 3
    await places[0].__aexit__(None, None, None)
    await places[1].__aexit__(None, None, None)
    assert not waiting[2].done()
    await places[2].__aexit__(None, None, None)
    await waiting[2]
