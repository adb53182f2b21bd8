from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.fair_share import Flow
from gristmill.dispatch.outage import Outage
from gristmill.dispatch.retry import RetryPolicy
from gristmill.dispatch.slots import Slots
from gristmill.dispatch.stop import Stop, Stopped, Why
from gristmill.dispatch.suspects import Suspects
from gristmill.engines.errors import EngineError, ErrorKind, crashed, unavailable
from gristmill.engines.protocol import Capabilities, Choice, Completion, OnDelta, Request
from gristmill.wire.chat import ChatCompletionRequest, Message

POLICY = RetryPolicy(max_attempts=4, first_delay=0.001, max_delay=0.002)
ANSWER = Completion("m", (Choice("yes", "stop"),), 1, 1)


class MortalEngine:
    """Crashes under rows with KILL, and cuts off whatever else is in flight; away for ``down`` steps after that.

    A row with AWAY gets an answer that the engine is away. With ``lingers`` it breaks off a row with KILL first, and
    dies of it under whatever it is asked next.
    """

    name = "mortal"
    models = ("m",)
    fingerprint = None

    def __init__(self, slots: int = 8, leader_first: bool = False, down: int = 5, lingers: bool = False) -> None:
        self.capabilities = Capabilities(slots, frozenset(), leader_first=leader_first)
        self.asked: Counter[str] = Counter()
        self.crashes = 0
        self._in_flight: set[asyncio.Future[None]] = set()
        self._down_for = down
        self._lingers = lingers
        self._doomed = False
        self._down = 0

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        assert isinstance(request, ChatCompletionRequest)
        text = request.messages[-1].text().rpartition("|")[2]
        if self._down:
            self._down -= 1
            raise unavailable("refused")
        self.asked[text] += 1
        if self._doomed:
            self._doomed = False
            self._die()
            raise crashed("mortal", "it died")
        cut = asyncio.get_running_loop().create_future()
        self._in_flight.add(cut)
        try:
            done, _ = await asyncio.wait([cut], timeout=0.001 if "KILL" in text else 0.003)
        finally:
            self._in_flight.discard(cut)
        if done:
            raise crashed("mortal", "it died")
        if "AWAY" in text:
            raise unavailable("502", crashed="mortal")
        if "KILL" in text:
            if self._lingers:
                self._doomed = True
            else:
                self._die()
            raise crashed("mortal", "it died")
        return ANSWER

    def _die(self) -> None:
        self.crashes += 1
        self._down = self._down_for
        for other in self._in_flight:
            other.set_result(None)


def dispatcher_of(engine: MortalEngine, **options: object) -> Dispatcher:
    dispatcher = Dispatcher(engine, policy=POLICY, **options)  # type: ignore[arg-type]
    dispatcher.outage = Outage(first_delay=0.002, max_delay=0.002)
    return dispatcher


def asking(text: str) -> Request:
    return ChatCompletionRequest(messages=[Message(role="user", content=text)], model="m")


async def ask(dispatcher: Dispatcher, text: str, flow: str = "") -> Completion | EngineError:
    try:
        return await dispatcher.ask(asking(text), Stop(), Flow(flow))
    except EngineError as error:
        return error


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("leader_first", [False, True])
async def test_only_killers_are_given_up_wherever_they_stand(seed: int, leader_first: bool) -> None:
    chance = random.Random(seed)
    killers = chance.randrange(1, 8)
    texts = [f"KILL {number}" for number in range(killers)] + [f"row {number}" for number in range(120)]
    chance.shuffle(texts)
    prefix = "shared " * 1000 if leader_first else ""
    engine = MortalEngine(slots=chance.choice([1, 3, 16]), leader_first=leader_first)
    dispatcher = dispatcher_of(engine)
    async with asyncio.timeout(60):
        results = await asyncio.gather(*(ask(dispatcher, f"{prefix}|{text}", text[-1]) for text in texts))
    for text, result in zip(texts, results, strict=True):
        assert isinstance(result, EngineError) == text.startswith("KILL"), text
        if text.startswith("KILL"):
            assert POLICY.max_attempts <= engine.asked[text] < POLICY.max_attempts + killers
        else:
            assert engine.asked[text] <= 1 + killers + 1
    assert dispatcher.in_flight == 0


async def test_a_suspect_is_asked_with_nothing_else_in_flight_and_the_newest_first() -> None:
    engine = MortalEngine(slots=4, down=0)
    order: list[str] = []
    ask_engine = engine.complete

    async def watched(request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False) -> Completion:
        if engine.crashes:
            order.append(f"{len(engine._in_flight)} {request.messages[-1].text()}")  # type: ignore[union-attr]
        return await ask_engine(request, on_delta)

    engine.complete = watched  # type: ignore[method-assign]
    dispatcher = dispatcher_of(engine)
    await asyncio.gather(*(ask(dispatcher, text) for text in ("a", "b", "c", "KILL")))
    assert order[0] == "0 KILL" and order.count("0 KILL") == 3
    # The others were cleared by that, and asked once more.
    assert sorted(text[2:] for text in order) == ["KILL"] * 3 + ["a", "b", "c"]


@pytest.mark.parametrize("slots", [4, 16])
async def test_whatever_dies_late_of_a_killer_is_not_held_against_the_rows_that_come_next(slots: int) -> None:
    """As a server whose engine is a process of its own: that it is gone shows a moment after the killer was cut off."""
    for seed in range(8):
        texts = ["KILL 0", "KILL 1", *(f"row {number}" for number in range(40))]
        random.Random(seed).shuffle(texts)
        dispatcher = dispatcher_of(MortalEngine(slots=slots, lingers=True))
        async with asyncio.timeout(60):
            results = await asyncio.gather(*(ask(dispatcher, text) for text in texts))
        for text, result in zip(texts, results, strict=True):
            assert isinstance(result, EngineError) == text.startswith("KILL"), (seed, text)


async def test_no_suspect_of_any_crash_has_its_turn_between_the_attempts_of_a_culprit() -> None:
    suspects = Suspects()
    culprit, other = suspects.crashed("one", suspects.sent()), suspects.crashed("two", suspects.sent())
    await culprit.turn()
    culprit.convict()
    waiting = asyncio.create_task(other.turn())
    await culprit.turn()
    await asyncio.sleep(0)
    assert not waiting.done()
    culprit.leave()
    async with asyncio.timeout(10):
        await waiting
    other.leave()
    third = suspects.crashed("two", suspects.sent())
    async with asyncio.timeout(10):
        await third.turn()
    waiting = asyncio.create_task((fourth := suspects.crashed("one", suspects.sent())).turn())
    await asyncio.sleep(0)
    waiting.cancel()
    fourth.leave()
    third.leave()
    async with asyncio.timeout(10):
        await suspects.crashed("three", suspects.sent()).turn()


async def test_a_row_that_gets_away_for_an_answer_while_others_are_answered_ends_as_itself() -> None:
    """As behind a proxy, which says 502 whether the server is away or crashes under the row."""
    engine = MortalEngine()
    dispatcher = dispatcher_of(engine)
    async with asyncio.timeout(60):
        lonely = asyncio.create_task(ask(dispatcher, "AWAY"))
        while not lonely.done():
            assert await ask(dispatcher, "row") is ANSWER
    assert isinstance(lonely.result(), EngineError)
    # Once it may be an outage, and once it is in company.
    assert engine.asked["AWAY"] <= POLICY.max_attempts + 1


async def test_an_engine_that_is_away_for_all_costs_no_row_an_attempt() -> None:
    engine = MortalEngine()
    dispatcher = dispatcher_of(engine)
    away = [asyncio.create_task(ask(dispatcher, f"AWAY {number}")) for number in range(3)]
    while sum(engine.asked.values()) < 60:
        await asyncio.sleep(0.001)
    assert not any(task.done() for task in away)
    for task in away:
        task.cancel()


async def test_a_suspect_that_is_stoped_or_cancelled_lets_the_next_have_its_turn() -> None:
    engine = MortalEngine(slots=4, down=0)
    dispatcher = dispatcher_of(engine)
    stop = Stop()
    engine._down = 0
    rows = [asyncio.create_task(ask(dispatcher, text)) for text in ("a", "b")]
    killer = asyncio.create_task(dispatcher.ask(asking("KILL"), stop))
    while not engine.crashes:
        await asyncio.sleep(0)
    stop.request(Why.LEAVING, 600)
    async with asyncio.timeout(10):
        assert await asyncio.gather(*rows) == [ANSWER, ANSWER]
        with pytest.raises(Stopped):
            await killer
    rows = [asyncio.create_task(ask(dispatcher, text)) for text in ("a", "b", "KILL")]
    while engine.crashes < 2:
        await asyncio.sleep(0)
    rows[2].cancel()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*rows[:2]) == [ANSWER, ANSWER]


async def test_an_engine_that_hangs_on_one_row_is_not_held_against_the_others() -> None:
    """While the row is in flight nobody is answered; without it everybody is."""

    class Hanging(MortalEngine):
        async def complete(
            self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
        ) -> Completion:
            text = request.messages[-1].text()  # type: ignore[union-attr]
            self.asked[text] += 1
            self._hung = getattr(self, "_hung", 0) + (text == "HANG")
            try:
                await asyncio.sleep(0)
                while self._hung:
                    await asyncio.sleep(0.001)
                return ANSWER
            finally:
                self._hung -= text == "HANG"

    engine = Hanging(slots=8)
    dispatcher = dispatcher_of(engine, timeout=0.05)
    async with asyncio.timeout(60):
        results = await asyncio.gather(*(ask(dispatcher, text) for text in ["HANG", *"abcdefghijkl"]))
    assert isinstance(results[0], EngineError) and results[0].kind is ErrorKind.TIMEOUT
    assert results[1:] == [ANSWER] * 12
    assert engine.asked["HANG"] <= POLICY.max_attempts + 1


async def test_who_wants_to_be_alone_and_the_others_wait_for_each_other_in_turn() -> None:
    slots, seen = Slots(3), list[str]()

    async def use(name: str, alone: bool) -> None:
        async with slots.place(Flow(name), alone):
            seen.append(name)
            assert slots.in_flight == 1 or not alone
            await asyncio.sleep(0.001)

    async with asyncio.timeout(10):
        await asyncio.gather(*(use("x", False) for _ in range(9)), *(use("A", True) for _ in range(3)))
    assert seen == ["x"] * 3 + ["A"] + ["x"] * 3 + ["A"] + ["x"] * 3 + ["A"]


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_is_cancelled_no_place_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    slots = Slots(chance.choice([1, 2, 5]))

    async def use(alone: bool) -> None:
        async with slots.place(Flow(str(chance.randrange(3))), alone):
            assert slots.in_flight == 1 if alone else slots.in_flight <= slots.limit
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)

    tasks = [asyncio.create_task(use(chance.random() < 0.3)) for _ in range(60)]
    for task in tasks:
        if chance.random() < 0.4:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
    async with asyncio.timeout(10):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
    assert slots.in_flight == 0
    async with asyncio.timeout(10), slots.place(alone=True):
        assert slots.in_flight == 1
