"""Suspects of an engine whose servers crash one by one: each is asked alone at one of them, and the others go on."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import msgspec
import pytest

from gristmill.dispatch.asking import ask_engine
from gristmill.dispatch.attempts import Attempts
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.fair_share import Flow
from gristmill.dispatch.outage import Outage
from gristmill.dispatch.retry import RetryPolicy
from gristmill.dispatch.stop import Stop, Stopped, Why
from gristmill.engines.errors import EngineError, ErrorKind, crashed
from gristmill.engines.isolation import NotYet
from gristmill.engines.protocol import AnyRequest, Capabilities, Choice, Completion, OnDelta, Request
from gristmill.wire.chat import ChatCompletionRequest, Message

POLICY = RetryPolicy(max_attempts=4, first_delay=0.001, max_delay=0.002)
ANSWER = Completion("m", (Choice("yes", "stop"),), 1, 1)


class Server:
    """Dies under rows with KILL, and cuts off whatever else it is answering. ``silent``: nobody says that it died."""

    def __init__(self, name: str, silent: bool) -> None:
        self.name = name
        self.silent = silent
        self.in_flight: set[asyncio.Future[None]] = set()
        self.kept = False

    async def answer(self, text: str) -> Completion:
        cut = asyncio.get_running_loop().create_future()
        self.in_flight.add(cut)
        try:
            done, _ = await asyncio.wait([cut], timeout=0.001 if "KILL" in text else 0.003)
        finally:
            self.in_flight.discard(cut)
        if "KILL" in text and not done:
            for other in self.in_flight:
                if not other.done():
                    other.set_result(None)
        if done or "KILL" in text:
            if self.silent:
                raise EngineError(ErrorKind.INTERRUPTED, "it is gone", lost=self.name)
            raise crashed(self.name, "it died")
        return ANSWER


class ManyServers:
    name = "many"
    models = ("m",)
    fingerprint = None

    def __init__(
        self, servers: int = 8, alone_slots: int = 2, leader_first: bool = False, silent: bool = False
    ) -> None:
        self.capabilities = Capabilities(4 * servers, frozenset(), leader_first=leader_first, alone_slots=alone_slots)
        self.servers = [Server(f"server {number}", silent) for number in range(servers)]
        self.asked: Counter[str] = Counter()
        self.alone = 0
        #: For each row that was asked alone: how many were answered in company from its beginning to its end.
        self.meanwhile: list[int] = []
        self.most_alone = 0
        self.answers = 0
        self.lost = 0

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        server = min((each for each in self.servers if not each.kept), key=lambda each: len(each.in_flight))
        answer = await server.answer(self._text(request))
        self.answers += 1
        return answer

    async def ask_alone(self, request: AnyRequest) -> Completion:
        server = min((each for each in self.servers if not each.kept), key=lambda each: len(each.in_flight))
        server.kept = True
        self.alone += 1
        self.most_alone = max(self.most_alone, self.alone)
        before = self.answers
        try:
            while server.in_flight:
                await asyncio.sleep(0.001)
            if self.lost:
                self.lost -= 1
                raise EngineError(ErrorKind.INTERRUPTED, "its node is gone", lost=server.name)
            return await server.answer(self._text(request))
        finally:
            server.kept = False
            self.alone -= 1
            self.meanwhile.append(self.answers - before)

    def _text(self, request: AnyRequest) -> str:
        assert isinstance(request, ChatCompletionRequest)
        text = request.messages[-1].text().rpartition("|")[2]
        self.asked[text] += 1
        return text


def dispatcher_of(engine: ManyServers) -> Dispatcher:
    dispatcher = Dispatcher(engine, policy=POLICY)
    dispatcher.outage = Outage(first_delay=0.002, max_delay=0.002)
    return dispatcher


async def ask(dispatcher: Dispatcher, text: str, flow: str = "", stop: Stop | None = None) -> object:
    request = ChatCompletionRequest(messages=[Message(role="user", content=text)], model="m")
    try:
        return await dispatcher.ask(request, stop or Stop(), Flow(flow))
    except (EngineError, Stopped) as error:
        return error


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("leader_first", [False, True])
async def test_only_killers_are_given_up_and_the_other_servers_go_on_meanwhile(seed: int, leader_first: bool) -> None:
    chance = random.Random(seed)
    killers = chance.randrange(1, 16)
    texts = [f"KILL {number}" for number in range(killers)] + [f"row {number}" for number in range(300)]
    chance.shuffle(texts)
    prefix = "shared " * 1000 if leader_first else ""
    engine = ManyServers(leader_first=leader_first)
    dispatcher = dispatcher_of(engine)
    results, waiting = dict[str, object](), iter(texts)

    async def work() -> None:
        """As a batch's worker."""
        for text in waiting:
            results[text] = await ask(dispatcher, f"{prefix}|{text}", text[-1])

    async with asyncio.timeout(60):
        await asyncio.gather(*(work() for _ in range(dispatcher.window)))
    for text, result in results.items():
        assert isinstance(result, EngineError) == text.startswith("KILL"), text
        if text.startswith("KILL"):
            assert POLICY.max_attempts <= engine.asked[text] < POLICY.max_attempts + killers
    assert sum(engine.meanwhile) >= len(engine.meanwhile) > 0
    assert engine.most_alone <= 2
    assert dispatcher.in_flight == 0


async def test_as_many_are_asked_alone_as_the_engine_says_at_the_time() -> None:
    engine = ManyServers(servers=16, alone_slots=4)
    dispatcher = dispatcher_of(engine)
    async with asyncio.timeout(60):
        await asyncio.gather(*(ask(dispatcher, f"KILL {number}") for number in range(12)))
        assert engine.most_alone == 4
        engine.capabilities = msgspec.structs.replace(engine.capabilities, alone_slots=1)
        engine.most_alone = 0
        await asyncio.gather(*(ask(dispatcher, f"KILL {number}") for number in range(20, 32)))
    assert engine.most_alone == 1


async def test_a_server_that_is_lost_under_a_row_that_is_alone_costs_an_attempt_and_convicts_nobody() -> None:
    engine = ManyServers(servers=1, alone_slots=1)
    dispatcher = dispatcher_of(engine)
    engine.lost = 3
    async with asyncio.timeout(60):
        innocent, killer = await asyncio.gather(ask(dispatcher, "row"), ask(dispatcher, "KILL"))
    assert innocent is ANSWER and isinstance(killer, EngineError)
    # Asked last, it was alone first: three attempts were lost with their servers, and the fourth was its own.
    assert engine.asked["KILL"] == 2


@pytest.mark.parametrize("seed", range(10))
async def test_whoever_is_cancelled_or_stopped_the_others_have_their_turn(seed: int) -> None:
    chance, engine = random.Random(seed), ManyServers(servers=4, alone_slots=1)
    dispatcher, stop = dispatcher_of(engine), Stop()
    texts = [f"KILL {number}" if chance.random() < 0.1 else f"row {number}" for number in range(100)]
    stopped = [text for text in texts if chance.random() < 0.3]
    tasks = {
        text: asyncio.create_task(ask(dispatcher, text, text[-1], stop if text in stopped else None)) for text in texts
    }
    cancelled = set[str]()
    for text in texts:
        if chance.random() < 0.3:
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
            if tasks[text].cancel():
                cancelled.add(text)
    stop.request(Why.CANCELLED, 600)
    async with asyncio.timeout(30):
        await asyncio.wait(tasks.values())
    for text in texts:
        if text not in cancelled and text not in stopped:
            assert isinstance(tasks[text].result(), EngineError) == text.startswith("KILL"), text
    assert dispatcher.in_flight == 0
    async with asyncio.timeout(10):
        assert isinstance(await ask(dispatcher, "KILL again"), EngineError)


@pytest.mark.parametrize("seed", range(6))
async def test_rows_that_are_lost_with_a_server_time_and_again_are_found_innocent_alone(seed: int) -> None:
    """As where a row takes all memory, and the system ends the actor that has the engine."""
    texts = [f"KILL {number}" for number in range(20)] + [f"row {number}" for number in range(200)]
    random.Random(seed).shuffle(texts)
    engine, results, waiting = ManyServers(silent=True), dict[str, object](), iter(texts)
    dispatcher = dispatcher_of(engine)

    async def work() -> None:
        for text in waiting:
            results[text] = await ask(dispatcher, text)

    async with asyncio.timeout(60):
        await asyncio.gather(*(work() for _ in range(dispatcher.window)))
    for text, result in results.items():
        assert isinstance(result, EngineError) == text.startswith("KILL"), text
        if isinstance(result, EngineError):
            assert "no other request in flight there" in result.message
            assert engine.asked[text] >= POLICY.max_attempts


async def test_a_row_that_is_lost_with_one_server_is_asked_again_among_the_others() -> None:
    engine = ManyServers(silent=True)
    dispatcher = dispatcher_of(engine)
    async with asyncio.timeout(60):
        texts = ["row 1", "row 2", "row 3", "row 4"]
        asking = [asyncio.create_task(ask(dispatcher, text)) for text in texts]
        await asyncio.sleep(0)
        while not engine.servers[0].in_flight:
            await asyncio.sleep(0)
        for cut in engine.servers[0].in_flight:
            cut.set_result(None)
        assert await asyncio.gather(*asking) == [ANSWER] * 4
    assert not engine.meanwhile and sum(engine.asked.values()) == 5


class Busy(ManyServers):
    """Its servers have others to answer first: whoever is to be alone waits for ``laps`` of 0.04 s."""

    laps = 0

    async def ask_alone(self, request: AnyRequest) -> Completion:
        self.laps -= 1
        if self.laps >= 0:
            await asyncio.sleep(0.04)
            raise NotYet
        return await super().ask_alone(request)


async def test_waiting_to_be_alone_counts_for_nothing() -> None:
    engine = Busy(servers=2, alone_slots=1, silent=True)
    dispatcher = Dispatcher(engine, policy=POLICY, timeout=0.1)
    attempts = Attempts(dispatcher._suspects, POLICY)
    for _ in range(2):
        attempts.failed(EngineError(ErrorKind.INTERRUPTED, "it is gone", lost="server 0"), 0)
    assert attempts.alone
    failures = attempts.failures
    engine.laps = 6
    request = ChatCompletionRequest(messages=[Message(role="user", content="row")], model="m")
    answer = await dispatcher._take_turn(
        lambda alone: ask_engine(engine, request, alone=alone), Stop(), Flow(""), None, attempts
    )
    assert answer == (ANSWER,) and engine.laps < 0
    assert attempts.failures == failures and dispatcher.in_flight == 0


async def test_a_row_that_may_be_somebody_elses_by_then_is_not_asked_again() -> None:
    engine = Busy(servers=2, alone_slots=1)
    dispatcher = Dispatcher(engine, policy=POLICY)
    attempts, stop = Attempts(dispatcher._suspects, POLICY), Stop()
    attempts.failed(crashed("server 0", "it died"), 0)
    engine.laps = 2
    stop.trust_until(time.monotonic() + 0.02)
    request = ChatCompletionRequest(messages=[Message(role="user", content="row")], model="m")
    assert (
        await dispatcher._take_turn(
            lambda alone: ask_engine(engine, request, alone=alone), stop, Flow(""), None, attempts
        )
        is None
    )
    assert engine.laps == 1 and not engine.asked
