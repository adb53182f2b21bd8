"""A row that is asked alone has a replica of its own, and the others go on. No cluster is needed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from structlog.testing import capture_logs

from gristmill.engines.answer_frames import Done
from gristmill.engines.errors import EngineError, ErrorKind, crashed, unavailable
from gristmill.engines.isolation import NotYet
from gristmill.engines.ray.admission import Admission, Taken
from gristmill.engines.ray.frames import Joined, Left
from gristmill.engines.ray.messages import NotAnswered, NotBegun
from gristmill.engines.ray.options import RayOptions
from gristmill.engines.ray.trials import Candidate, choose_for_trial, most_trials
from pool_replicas import ANSWER, FACTS, Replicas


def test_at_most_a_quarter_of_the_replicas_are_on_trial_and_at_least_one() -> None:
    assert [most_trials(replicas) for replicas in (0, 1, 4, 7, 8, 100)] == [1, 1, 1, 1, 2, 25]


def test_the_emptiest_goes_on_trial_but_not_one_that_broke_a_row_off_while_there_are_others() -> None:
    replicas = {"a": Candidate(3, 0.0), "b": Candidate(1, 0.0), "c": Candidate(0, 5.0), "d": Candidate(0, 4.0)}
    assert choose_for_trial(replicas) == "b"
    assert choose_for_trial({name: replicas[name] for name in "cd"}) == "d"
    assert choose_for_trial({}) is None


@pytest.mark.parametrize(
    ("engine", "replicas", "isolates"),
    [("vllm", "4", True), ("llama_cpp", "1:2", True), ("llama_cpp", "1", False), ("ollama", "4", False)],
)
def test_a_pool_isolates_where_its_replicas_are_several_and_share_no_server(
    engine: str, replicas: str, isolates: bool
) -> None:
    assert RayOptions(replicas=replicas, replica_engine=engine).isolates is isolates


async def until_asked(replicas: Replicas, number: int) -> None:
    async with asyncio.timeout(10):
        while len(replicas.asked) < number:
            replicas.pool.beat()
            await asyncio.sleep(0.001)


def answer_all(replicas: Replicas, since: int = 0) -> None:
    for name, number in replicas.asked[since:]:
        replicas.answer(name, Done(number, ANSWER))


async def test_a_replica_on_trial_gets_nothing_else_until_it_has_answered_and_the_others_all_the_rest() -> None:
    replicas = Replicas("a", "b", "c", "d")
    replicas.holds = True
    alone = [asyncio.create_task(replicas.ask(alone=True)) for _ in range(2)]
    others = [asyncio.create_task(replicas.ask()) for _ in range(20)]
    await until_asked(replicas, 13)
    # Three replicas are full, the fourth is on trial, and the other row waits for it to be over.
    assert sorted(Counter(name for name, _ in replicas.asked).values()) == [1, 4, 4, 4]
    (first,) = replicas.alone
    (on_trial,) = (name for name, number in replicas.asked if number == first)
    replicas.answer(on_trial, Done(first, ANSWER))
    await until_asked(replicas, 18)
    # The rows that waited got a round of places there before the other was asked.
    assert [number in replicas.alone for _, number in replicas.asked[13:]] == [False] * 4 + [True]
    assert {name for name, _ in replicas.asked[13:17]} == {on_trial}
    replicas.holds = False
    answer_all(replicas)
    assert await asyncio.gather(*alone, *others) == [ANSWER] * 22


async def test_a_row_that_crashes_its_replica_alone_is_asked_at_another_the_next_time() -> None:
    replicas = Replicas("a", "b", "c", "d")
    replicas.away = {name: crashed("the worker", "It died.") for name in "abcd"}
    for _ in range(4):
        with pytest.raises(EngineError) as raised:
            await replicas.ask(alone=True)
        assert raised.value.crashed == f"the worker of {replicas.asked[-1][0]}"
    assert sorted(name for name, _ in replicas.asked) == ["a", "b", "c", "d"]
    replicas.away.clear()
    await replicas.ask(alone=True)
    assert replicas.asked[4][0] == replicas.asked[0][0]


async def test_a_row_whose_replica_is_lost_while_it_is_alone_is_not_to_blame_and_the_next_has_its_turn() -> None:
    replicas = Replicas("a", "b", "c", "d")
    replicas.holds = True
    first, second = (asyncio.create_task(replicas.ask(alone=True)) for _ in range(2))
    await until_asked(replicas, 1)
    lost = replicas.asked[0][0]
    replicas.pool.left(Left(lost, f"session of {lost}", "Its node is gone.", died=True))
    with pytest.raises(EngineError) as raised:
        await first
    assert (raised.value.kind, raised.value.crashed) == (ErrorKind.INTERRUPTED, None)
    await until_asked(replicas, 2)
    answer_all(replicas, 1)
    assert await second == ANSWER


@pytest.mark.parametrize("died", [True, False])
async def test_only_a_replica_that_died_is_told_to_be_lost_with_its_row(died: bool) -> None:
    replicas = Replicas("a")
    replicas.holds = True
    asking = asyncio.create_task(replicas.ask())
    await until_asked(replicas, 1)
    replicas.pool.left(Left("a", "session of a", "It is over.", died=died))
    with pytest.raises(EngineError) as raised:
        await asking
    assert raised.value.kind is ErrorKind.INTERRUPTED and raised.value.lost == ("a" if died else None)


async def test_a_row_that_is_to_be_alone_goes_to_another_replica_where_its_own_is_away() -> None:
    replicas = Replicas("a", "b")
    replicas.away["a"] = replicas.away["b"] = unavailable("It is being started again.")
    asking = asyncio.create_task(replicas.ask(alone=True))
    await until_asked(replicas, 1)
    replicas.away.clear()
    assert await asking == ANSWER
    assert len({name for name, _ in replicas.asked}) == 2


async def test_fewer_replicas_than_rows_on_trial_end_those_and_begin_no_more_than_one() -> None:
    names = [f"r{number}" for number in range(8)]
    replicas = Replicas(*names)
    replicas.holds = True
    alone = [asyncio.create_task(replicas.ask(alone=True)) for _ in range(4)]
    await until_asked(replicas, 2)
    kept = [name for name, _ in replicas.asked]
    for name in names:
        if name not in kept:
            replicas.pool.left(Left(name, f"session of {name}", "Its node is gone.", died=True))
    other = asyncio.create_task(replicas.ask())
    await asyncio.sleep(0.01)
    assert len(replicas.asked) == 2
    replicas.answer(kept[0], Done(replicas.asked[0][1], ANSWER))
    await until_asked(replicas, 3)
    assert replicas.asked[2][1] not in replicas.alone
    replicas.holds = False
    answer_all(replicas, 1)
    assert await asyncio.gather(*alone, other) == [ANSWER] * 5


@pytest.mark.parametrize("seed", range(12))
async def test_whoever_is_cancelled_or_lost_no_replica_stays_on_trial_and_everybody_else_is_answered(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"r{number}" for number in range(chance.choice([1, 2, 5, 9]))]
    replicas = Replicas(*names)
    replicas.holds = True
    tasks, answered = [asyncio.create_task(replicas.ask(alone=chance.random() < 0.4)) for _ in range(120)], 0
    for step in range(4000):
        if all(task.done() for task in tasks):
            break
        await asyncio.sleep(0)
        if chance.random() < 0.05:
            chance.choice(tasks).cancel()
        if chance.random() < 0.02:
            name = chance.choice(names)
            replicas.pool.left(Left(name, f"session of {name}", "It was killed.", died=True))
            replicas.pool.joined(Joined(name, f"session of {name}", FACTS))
        on_trial = replicas.pool._trials
        assert len(on_trial) <= most_trials(len(names))
        for name in on_trial:
            assert not replicas.pool._loads.free(name)
        if answered < len(replicas.asked) and (chance.random() < 0.5 or step > 2000):
            name, number = replicas.asked[answered]
            answered += 1
            error = crashed("the worker", "It died.")
            replicas.answer(name, Done(number, ANSWER) if chance.random() < 0.8 else NotAnswered.of(number, error))
        elif step % 50 == 0:
            await asyncio.sleep(0.003)
    async with asyncio.timeout(10):
        await asyncio.wait(tasks)
    assert not replicas.pool._trials and not len(replicas.pool._queue)
    replicas.holds = False
    assert await asyncio.gather(replicas.ask(), replicas.ask(alone=True)) == [ANSWER] * 2


async def test_whoever_asks_alone_has_the_replica_once_the_rows_of_others_are_answered() -> None:
    admission, order = Admission(10.0), list[str]()
    release = asyncio.Event()

    async def ask(name: str) -> str:
        order.append(name)
        await release.wait()
        return name

    before = asyncio.create_task(admission.answer("other", False, lambda: ask("before")))
    await asyncio.sleep(0)
    alone = asyncio.create_task(admission.answer("one", True, lambda: ask("alone")))
    await asyncio.sleep(0)
    own = asyncio.create_task(admission.answer("one", False, lambda: ask("own")))
    await asyncio.sleep(0)
    for whether in (False, True):
        with pytest.raises(Taken):
            await admission.answer("other", whether, lambda: ask("refused"))
    assert order == ["before"]
    release.set()
    assert await asyncio.gather(before, alone, own) == ["before", "alone", "own"] == order
    assert await admission.answer("other", False, lambda: ask("after")) == "after"


@pytest.mark.parametrize("seed", range(12))
async def test_whoever_is_cancelled_at_a_replica_who_is_alone_stays_alone(seed: int) -> None:
    chance, running = random.Random(seed), list[bool]()
    admission = Admission(chance.choice([10.0, 1.0]))

    async def ask(alone: bool) -> None:
        running.append(alone)
        try:
            for _ in range(chance.randrange(4)):
                assert len(running) == 1 or not any(running)
                await asyncio.sleep(0)
        finally:
            running.remove(alone)

    async def come(client: str, alone: bool) -> None:
        while True:
            try:
                return await admission.answer(client, alone, lambda: ask(alone))
            except (Taken, NotYet):
                await asyncio.sleep(0)

    tasks = [asyncio.create_task(come(chance.choice("xy"), chance.random() < 0.3)) for _ in range(80)]
    for task in tasks:
        if chance.random() < 0.4:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
    async with asyncio.timeout(10):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
    assert admission.in_flight == 0
    await admission.answer("z", True, lambda: ask(True))


async def test_who_waits_at_a_replica_is_sent_back_and_nobody_else_gets_it_meanwhile() -> None:
    admission, begun = Admission(1.0), list[str]()
    release = asyncio.Event()

    async def ask(name: str, wait: bool = False) -> str:
        begun.append(name)
        if wait:
            await release.wait()
        return name

    before = asyncio.create_task(admission.answer("other", False, lambda: ask("before", True)))
    await asyncio.sleep(0)
    for _ in range(2):
        # Its server may have hung since it asked, so it is to ask again.
        with pytest.raises(NotYet):
            await admission.answer("one", True, lambda: ask("alone"))
        with pytest.raises(Taken):
            await admission.answer("other", False, lambda: ask("refused"))
    release.set()
    assert await before == "before"
    with pytest.raises(Taken):
        await admission.answer("other", False, lambda: ask("refused"))
    assert await admission.answer("one", True, lambda: ask("alone")) == "alone"
    assert await admission.answer("other", False, lambda: ask("after")) == "after"
    assert begun == ["before", "alone", "after"]


async def test_a_replica_is_kept_no_longer_than_its_client_may_take_to_ask_again() -> None:
    admission, release = Admission(0.5), asyncio.Event()
    before = asyncio.create_task(admission.answer("other", False, release.wait))
    await asyncio.sleep(0)
    with pytest.raises(NotYet):
        await admission.answer("one", True, release.wait)
    release.set()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await admission.answer("other", False, release.wait)
                break
            except Taken:
                await asyncio.sleep(0.01)
    assert await before


async def test_a_replica_that_a_row_waits_for_is_kept_for_it_until_it_asks_again() -> None:
    replicas = Replicas("a", "b", stale=1.0)
    replicas.holds = True
    alone = asyncio.create_task(replicas.ask(alone=True))
    await until_asked(replicas, 1)
    ((kept, number),) = replicas.asked
    others = [asyncio.create_task(replicas.ask()) for _ in range(5)]
    replicas.answer(kept, NotBegun(number, taken=False))
    with pytest.raises(NotYet):
        await alone
    await until_asked(replicas, 5)
    assert kept not in {name for name, _ in replicas.asked[1:]}
    again = asyncio.create_task(replicas.ask(alone=True))
    await until_asked(replicas, 6)
    assert replicas.asked[5][0] == kept
    replicas.answer(kept, NotBegun(replicas.asked[5][1], taken=False))
    with pytest.raises(NotYet):
        await again
    # It did not come back.
    await until_asked(replicas, 7)
    assert replicas.asked[6][0] == kept
    answer_all(replicas, 1)
    assert await asyncio.gather(*others) == [ANSWER] * 5


async def test_a_row_that_no_replica_is_free_for_is_sent_back_unasked() -> None:
    replicas = Replicas("a", "b", stale=1.0)
    replicas.holds = True
    first = asyncio.create_task(replicas.ask(alone=True))
    await until_asked(replicas, 1)
    with pytest.raises(NotYet):
        await replicas.ask(alone=True)
    answer_all(replicas)
    assert await first == ANSWER
    assert len(replicas.asked) == 1 and not len(replicas.pool._queue)


async def test_a_replica_that_another_server_has_is_left_alone_for_a_moment_and_is_not_away() -> None:
    replicas = Replicas("a", "b")
    replicas.holds = True
    asking = [asyncio.create_task(replicas.ask()) for _ in range(4)]
    await until_asked(replicas, 4)
    refused = [number for name, number in replicas.asked if name == "a"]
    with capture_logs() as logs:
        for number in refused:
            replicas.answer("a", NotBegun(number, taken=True))
        await until_asked(replicas, 4 + len(refused))
    assert {name for name, _ in replicas.asked[4:]} == {"b"}
    member = replicas.pool.members["a"]
    assert member.rests and member.health.trips == 0 and member.broke_off == 0.0
    assert not logs and replicas.pool.down_reason is None
    replicas.holds = False
    answer_all(replicas)
    assert await asyncio.gather(*asking) == [ANSWER] * 4
