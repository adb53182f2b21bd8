"""A replica whose engine is away is left alone for a while, and the others answer what it had. No cluster is needed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gristmill.engines.answer_frames import Done
from gristmill.engines.errors import EngineError, ErrorKind, interrupted, unavailable
from gristmill.engines.ray.frames import Joined, Left
from gristmill.engines.ray.messages import NotAnswered
from pool_replicas import ANSWER, FACTS, Replicas


@contextmanager
def kind(wanted: ErrorKind) -> Iterator[pytest.ExceptionInfo[EngineError]]:
    with pytest.raises(EngineError) as raised:
        yield raised
    assert raised.value.kind is wanted


async def test_rows_of_a_replica_whose_engine_is_away_are_answered_by_the_others() -> None:
    replicas = Replicas("a", "b")
    replicas.away["a"] = unavailable("vLLM is being started again.")
    answers = await asyncio.gather(*(replicas.ask() for _ in range(40)))
    assert answers == [ANSWER] * 40
    # It was asked what was on its way already, and left alone after that.
    assert Counter(name for name, _ in replicas.asked)["a"] <= FACTS.capabilities.slots
    assert replicas.pool.down_reason is None


async def test_a_row_that_its_replica_had_for_long_before_it_was_away_is_answered_by_another() -> None:
    replicas = Replicas("a")
    replicas.holds = True
    asking = asyncio.create_task(replicas.ask())
    while not replicas.asked:
        await asyncio.sleep(0.01)
    (request,) = replicas.pool.members["a"].in_flight.values()
    request.since -= 60
    replicas.holds = False
    replicas.pool.joined(Joined("b", "session of b", FACTS))
    replicas.answer("a", NotAnswered.of(request.number, unavailable("No connection within 30 seconds.")))
    assert await asking == ANSWER
    assert [name for name, _ in replicas.asked] == ["a", "b"]


async def test_whoever_waits_for_an_answer_gets_the_next_place_before_batches_and_in_turn() -> None:
    replicas = Replicas("a")
    replicas.holds = True
    slots = FACTS.capabilities.slots
    asking = [asyncio.create_task(replicas.ask(interactive=number >= slots + 2)) for number in range(slots + 5)]
    while len(replicas.asked) < slots:
        await asyncio.sleep(0.01)
    for at in range(5):
        replicas.answer("a", Done(replicas.asked[at][1], ANSWER))
        while len(replicas.asked) < slots + at + 1:
            await asyncio.sleep(0.01)
    numbers = [number for _, number in replicas.asked]
    first = numbers[0]
    assert [number - first - slots for number in numbers[slots:]] == [2, 3, 4, 0, 1]
    for _, number in replicas.asked[5:]:
        replicas.answer("a", Done(number, ANSWER))
    assert await asyncio.gather(*asking) == [ANSWER] * (slots + 5)


async def test_where_all_are_away_the_pool_is() -> None:
    replicas = Replicas("a", "b")
    replicas.away = {name: unavailable("Nobody is there.") for name in "ab"}
    with kind(ErrorKind.UNAVAILABLE):
        await replicas.ask()
    assert replicas.pool.down_reason == "Nobody is there."
    asked = len(replicas.asked)
    with kind(ErrorKind.UNAVAILABLE):
        await replicas.ask()
    assert len(replicas.asked) == asked


async def test_one_that_has_rested_is_asked_one_row_until_it_has_answered_that() -> None:
    replicas = Replicas("a")
    replicas.away["a"] = unavailable("Not yet.")
    with kind(ErrorKind.UNAVAILABLE):
        await replicas.ask()
    replicas.away.clear()
    replicas.holds = True
    while replicas.pool.down_reason is not None:
        await asyncio.sleep(0.01)
    before = len(replicas.asked)
    asking = [asyncio.create_task(replicas.ask()) for _ in range(9)]
    while len(replicas.asked) == before:
        await asyncio.sleep(0.01)
    assert len(replicas.asked) == before + 1
    replicas.holds = False
    replicas.answer(replicas.asked[-1][0], Done(replicas.asked[-1][1], ANSWER))
    assert await asyncio.gather(*asking) == [ANSWER] * 9


async def test_one_that_breaks_off_its_first_row_after_a_rest_is_asked_one_more_only() -> None:
    replicas = Replicas("a")
    replicas.away["a"] = unavailable("Not yet.")
    with kind(ErrorKind.UNAVAILABLE):
        await replicas.ask()
    replicas.away["a"] = interrupted("It has died again.")
    while replicas.pool.down_reason is not None:
        await asyncio.sleep(0.01)
    with kind(ErrorKind.INTERRUPTED):
        await replicas.ask()
    replicas.away.clear()
    replicas.holds = True
    before = len(replicas.asked)
    asking = [asyncio.create_task(replicas.ask()) for _ in range(9)]
    while len(replicas.asked) == before:
        await asyncio.sleep(0.01)
    assert len(replicas.asked) == before + 1
    replicas.holds = False
    replicas.answer("a", Done(replicas.asked[-1][1], ANSWER))
    assert await asyncio.gather(*asking) == [ANSWER] * 9


async def test_a_row_that_its_engine_may_be_away_for_goes_to_no_other() -> None:
    replicas = Replicas("a", "b")
    replicas.away = {name: unavailable("It died.", crashed="the server") for name in "ab"}
    with kind(ErrorKind.INTERRUPTED) as raised:
        await replicas.ask()
    assert len(replicas.asked) == 1
    assert raised.value.crashed == f"the server of {replicas.asked[0][0]}"


async def test_a_row_that_was_not_sent_yet_is_not_lost_with_its_replica() -> None:
    replicas = Replicas("a")
    asking = [asyncio.create_task(replicas.ask()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not replicas.asked
    replicas.pool.joined(Joined("b", "session of b", FACTS))
    replicas.pool.left(Left("a", "session of a", "It was killed.", died=True))
    assert await asyncio.gather(*asking) == [ANSWER] * 3
    assert {name for name, _ in replicas.asked} == {"b"}


async def test_rows_that_wait_for_a_place_may_be_cancelled_by_the_thousand() -> None:
    replicas = Replicas("a")
    replicas.holds = True
    asking = [asyncio.create_task(replicas.ask()) for _ in range(20_000)]
    await asyncio.sleep(0.05)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    replicas.holds = False
    assert await replicas.ask() == ANSWER
