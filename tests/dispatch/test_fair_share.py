"""Sharing an engine among batches: by tokens, without starvation. Simulated; nothing waits."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.dispatch.fair_share import INTERACTIVE, QUANTUM, TURN_REQUESTS, Charge, FairShare, Flow, weight
from gristmill.dispatch.slots import Slots

#: Tokens of each request of a flow, and when it comes, in tokens served before.
Load = tuple[Flow, float, int, int]


Served = tuple[str, float, float]


def serve(loads: list[Load], total: float, slots: int = 4, quantum: float = 1_000) -> Iterator[Served]:
    """Yields flow, tokens, and tokens served so far, of each request that ends; all take a time like their tokens."""
    share = FairShare(quantum)
    left = {flow.name: count for flow, _, _, count in loads}
    running: deque[tuple[Flow, float, Charge]] = deque()
    served = 0.0
    while served < total:
        waiting = [flow.name for flow, begin, _, _ in loads if begin <= served and left[flow.name]]
        if waiting and len(running) < slots:
            name = share.choose(waiting)
            flow, _, tokens, _ = next(load for load in loads if load[0].name == name)
            left[name] -= 1
            running.append((flow, tokens, share.granted(flow)))
            continue
        if not running:
            return
        flow, tokens, charge = running.popleft()
        share.finished(flow, charge, tokens)
        served += tokens
        yield flow.name, tokens, served


def tokens_of(loads: list[Load], total: float, **options: float) -> Counter[str]:
    counted: Counter[str] = Counter()
    for name, tokens, _ in serve(loads, total, **options):  # type: ignore[arg-type]
        counted[name] += int(tokens)
    return counted


def test_batches_get_the_same_tokens_however_long_their_rows_are() -> None:
    loads = [(Flow("short"), 0.0, 50, 10**6), (Flow("long"), 0.0, 2_000, 10**6)]
    shares = tokens_of(loads, 10**6)
    assert shares["short"] / shares["long"] == pytest.approx(1, rel=0.05)


def test_a_step_of_priority_is_twice_the_share() -> None:
    loads = [(Flow("a", weight(0, None, 1)), 0.0, 100, 10**6), (Flow("b", weight(2, None, 1)), 0.0, 100, 10**6)]
    shares = tokens_of(loads, 10**6)
    assert shares["b"] / shares["a"] == pytest.approx(4, rel=0.05)


def test_a_batch_that_would_miss_its_deadline_gets_more() -> None:
    assert weight(0, 100, 50) == 4 * weight(0, 100, 200) == 4 * weight(0, None, 50)


def test_a_small_batch_that_comes_late_is_done_long_before_the_big_one() -> None:
    """100 rows of 50 tokens arrive when a batch of 100,000 has run for a while."""
    big, small = Flow("big"), Flow("small")
    loads = [(big, 0.0, 50, 100_000), (small, 1_000_000.0, 50, 100)]
    done = [served for name, _, served in serve(loads, 10**7) if name == "small"]
    assert len(done) == 100
    # Its 5,000 tokens, as many of the other's, a quantum and what was in flight.
    assert done[-1] - 1_000_000 <= 2 * 5_000 + 2 * 1_000 + 8 * 50


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(50, 2_000), st.integers(-3, 3)), min_size=2, max_size=6), st.integers(1, 16))
def test_nobody_starves(kinds: list[tuple[int, int]], slots: int) -> None:
    """Every flow is served within the time its share gives it, whoever else is there."""
    quantum = 1_000.0
    loads = [(Flow(str(i), weight(step, None, 1)), 0.0, tokens, 10**6) for i, (tokens, step) in enumerate(kinds)]
    weights = {flow.name: flow.weight for flow, *_ in loads}
    largest = max(tokens for tokens, _ in kinds)
    total = 20 * largest * len(kinds) + 20_000
    last = dict.fromkeys(weights, 0.0)
    for name, _, served in serve(loads, total, slots=slots, quantum=quantum):
        last[name] = served
        for other, at in last.items():
            # While one waits, another's clock goes from a quantum behind to a quantum ahead of it, but for requests
            # in flight; a clock's step is so many tokens as the flow has weight.
            def room(each: float, own: float) -> float:
                return each * 2 * (quantum + slots * largest * (1 / each + 1 / own))

            assert served - at <= sum(room(each, weights[other]) for each in weights.values())


def test_a_flow_that_was_away_has_not_saved_up_turns() -> None:
    share = FairShare(0)
    for _ in range(1_000):
        share.finished(Flow("here"), share.granted(Flow(share.choose(["here"]))), 100)
    turns = Counter()
    for _ in range(100):
        flow = Flow(share.choose(["here", "back"]))
        share.finished(flow, share.granted(flow), 100)
        turns[flow.name] += 1
    assert turns["back"] <= 52


def test_a_flow_keeps_its_turn_for_a_quantum_so_that_prefixes_are_not_thrown_out() -> None:
    loads = [(Flow("a"), 0.0, 50, 10**6), (Flow("b"), 0.0, 50, 10**6)]
    names = [name for name, _, _ in serve(loads, 100 * 50 * TURN_REQUESTS, slots=1, quantum=QUANTUM)]
    changes = sum(before != after for before, after in zip(names, names[1:], strict=False))
    assert changes <= 101


async def within(slots: Slots, flow: Flow, ended: Callable[[str], None]) -> None:
    async with slots.place(flow) as place:
        await asyncio.sleep(0)
        place.cost = 100
    ended(flow.name)


async def test_whoever_waits_for_an_answer_does_not_stand_behind_batches() -> None:
    slots, ended = Slots(2), []
    rows = [asyncio.create_task(within(slots, Flow("batch"), ended.append)) for _ in range(1_000)]
    await asyncio.sleep(0)
    await within(slots, INTERACTIVE, ended.append)
    assert ended.index("") <= 4
    await asyncio.gather(*rows)
    assert slots.in_flight == 0


async def test_another_weight_counts_for_requests_that_wait_already() -> None:
    slots, ended = Slots(1, FairShare(0, turn_requests=1)), []
    first, second = Flow("first"), Flow("second")
    rows = [asyncio.create_task(within(slots, flow, ended.append)) for flow in (first, second) for _ in range(50)]
    await asyncio.sleep(0)
    second.weight = 4.0
    await asyncio.gather(*rows)
    assert 38 <= Counter(ended[:50])["second"] <= 42


async def test_cancelled_waiters_leave_no_place_behind() -> None:
    slots, ended = Slots(1), []
    rows = [asyncio.create_task(within(slots, Flow(str(i % 3)), ended.append)) for i in range(90)]
    await asyncio.sleep(0)
    for row in rows[::2]:
        row.cancel()
    await asyncio.gather(*rows, return_exceptions=True)
    assert slots.in_flight == 0
    async with slots.place():
        assert slots.in_flight == 1
