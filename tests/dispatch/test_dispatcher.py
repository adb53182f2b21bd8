from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.outage import Outage
from gristmill.dispatch.retry import RetryPolicy
from gristmill.dispatch.stop import Stop, Stopped, Why
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import Capabilities, Choice, Completion, OnDelta, Request
from gristmill.wire.chat import ChatCompletionRequest, Message

FAST = RetryPolicy(max_attempts=3, first_delay=0.001, max_delay=0.002)
ANSWER = Completion("m", (Choice("yes", "stop"),), 1, 1)
Behaviour = Callable[[int], Awaitable[Completion]]


class ScriptedEngine:
    """Does what ``behaviour`` says for the n-th call (from 1), and counts."""

    name = "scripted"
    models = ("m",)

    def __init__(self, behaviour: Behaviour, slots: int = 4) -> None:
        self._behaviour = behaviour
        self.capabilities = Capabilities(slots, frozenset())
        self.calls = self.in_flight = self.most_in_flight = 0

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        self.calls += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._behaviour(self.calls)
        finally:
            self.in_flight -= 1


def request() -> Request:
    return ChatCompletionRequest(messages=[Message(role="user", content="x")], model="m")


def failing(*kinds: ErrorKind | None) -> Behaviour:
    """The n-th call fails with the n-th kind; after the last, every call is answered."""

    async def behave(call: int) -> Completion:
        await asyncio.sleep(0)
        kind = kinds[call - 1] if call <= len(kinds) else None
        if kind is not None:
            raise EngineError(kind, f"a failure: {kind.value}")
        return ANSWER

    return behave


def dispatcher_of(engine: ScriptedEngine, **options: object) -> Dispatcher:
    dispatcher = Dispatcher(engine, policy=FAST, **options)  # type: ignore[arg-type]
    dispatcher.outage = Outage(first_delay=0.01, max_delay=0.01)
    return dispatcher


async def ask(dispatcher: Dispatcher) -> Completion:
    return await dispatcher.ask(request(), Stop())


@pytest.mark.parametrize("window", [1, 3, 16])
def test_the_window_is_filled_and_never_exceeded(window: int) -> None:
    async def behave(_: int) -> Completion:
        await asyncio.sleep(0.001)
        return ANSWER

    async def main() -> None:
        engine = ScriptedEngine(behave)
        dispatcher = dispatcher_of(engine, window=window)
        rows = [ask(dispatcher) for _ in range(60)]
        direct = [dispatcher.ask_once(request()) for _ in range(20)]
        await asyncio.gather(*rows, *direct)
        assert engine.most_in_flight == window
        assert engine.calls == 80

    asyncio.run(main())


def test_without_a_window_the_engine_gets_as_many_as_it_has_slots() -> None:
    assert Dispatcher(ScriptedEngine(failing(), slots=7)).window == 7


@pytest.mark.parametrize("kind", [ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE])
def test_an_engine_that_is_overloaded_or_away_is_waited_for_however_often_it_says_so(kind: ErrorKind) -> None:
    async def main() -> None:
        engine = ScriptedEngine(failing(*[kind] * 20))
        assert await ask(dispatcher_of(engine)) is ANSWER
        assert engine.calls == 21

    asyncio.run(main())


def test_pauses_do_not_use_up_the_attempts_of_a_row() -> None:
    async def main() -> None:
        failures = [ErrorKind.INTERRUPTED, ErrorKind.OVERLOADED, ErrorKind.OVERLOADED, ErrorKind.TIMEOUT]
        engine = ScriptedEngine(failing(*failures))
        assert await ask(dispatcher_of(engine)) is ANSWER
        engine = ScriptedEngine(failing(*failures, ErrorKind.INTERRUPTED))
        with pytest.raises(EngineError):
            await ask(dispatcher_of(engine))

    asyncio.run(main())


def test_an_invalid_request_is_asked_once() -> None:
    async def main() -> None:
        engine = ScriptedEngine(failing(ErrorKind.INVALID_REQUEST))
        with pytest.raises(EngineError):
            await ask(dispatcher_of(engine))
        assert engine.calls == 1

    asyncio.run(main())


def test_while_the_engine_is_away_no_row_asks_it() -> None:
    async def main() -> None:
        engine = ScriptedEngine(failing(*[ErrorKind.UNAVAILABLE] * 4), slots=4)
        dispatcher = dispatcher_of(engine)
        dispatcher.outage = Outage(first_delay=0.2)
        rows = asyncio.gather(*(ask(dispatcher) for _ in range(50)))
        while not dispatcher.outage.open:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        # Only those that were in flight when it went away; those that waited for a place did not try.
        assert dispatcher.outage.open and engine.calls == 4
        assert dispatcher.outage.reason == "a failure: unavailable"
        assert await rows == [ANSWER] * 50
        assert dispatcher.outage.reason is None

    asyncio.run(main())


def test_a_row_that_waits_is_given_up_at_once_and_one_in_flight_is_left_to_finish() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def behave(_: int) -> Completion:
            await release.wait()
            return ANSWER

        engine = ScriptedEngine(behave, slots=2)
        dispatcher = dispatcher_of(engine)
        stop = Stop()
        rows = [asyncio.create_task(dispatcher.ask(request(), stop)) for _ in range(6)]
        while engine.in_flight < 2:
            await asyncio.sleep(0)
        stop.request(Why.LEAVING, 600)
        release.set()
        results = await asyncio.gather(*rows, return_exceptions=True)
        assert results[:2] == [ANSWER, ANSWER]
        assert all(isinstance(result, Stopped) for result in results[2:])
        assert engine.calls == 2

    asyncio.run(main())


@pytest.mark.parametrize("kind", [ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE])
def test_a_row_that_pauses_is_given_up_at_once(kind: ErrorKind) -> None:
    async def main() -> None:
        engine = ScriptedEngine(failing(*[kind] * 5))
        dispatcher = Dispatcher(engine, policy=RetryPolicy(first_delay=3600, max_delay=3600))
        dispatcher.outage = Outage(first_delay=3600)
        stop = Stop()
        row = asyncio.create_task(dispatcher.ask(request(), stop))
        while engine.calls == 0 or engine.in_flight:
            await asyncio.sleep(0)
        stop.request(Why.LEAVING, 600)
        with pytest.raises(Stopped):
            await row

    asyncio.run(main())


def test_an_engine_that_does_not_answer_in_time_costs_an_attempt() -> None:
    async def main() -> None:
        async def behave(call: int) -> Completion:
            if call < 3:
                await asyncio.sleep(3600)
            return ANSWER

        engine = ScriptedEngine(behave)
        assert await ask(dispatcher_of(engine, timeout=0.01)) is ANSWER
        assert engine.calls == 3 and engine.in_flight == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "defect",
    # The last as of a future that the engine has cancelled, while nobody has cancelled the request.
    [RuntimeError("bug"), KeyError("x"), ValueError(), RecursionError(), MemoryError(), asyncio.CancelledError()],
)
def test_a_defect_of_the_engine_is_an_engine_error_of_the_row_and_frees_its_place(defect: BaseException) -> None:
    async def main() -> None:
        async def behave(call: int) -> Completion:
            if call <= FAST.max_attempts:
                raise defect
            return ANSWER

        engine = ScriptedEngine(behave)
        dispatcher = dispatcher_of(engine, window=1)
        with pytest.raises(EngineError) as raised:
            await ask(dispatcher)
        assert raised.value.kind is ErrorKind.INTERRUPTED and repr(defect) in raised.value.message
        assert engine.calls == FAST.max_attempts
        assert await ask(dispatcher) is ANSWER

    asyncio.run(main())


def test_a_caller_who_goes_away_while_waiting_takes_no_place_with_him() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def behave(_: int) -> Completion:
            await release.wait()
            return ANSWER

        engine = ScriptedEngine(behave)
        dispatcher = dispatcher_of(engine, window=1)
        first, second, third = (asyncio.create_task(dispatcher.ask_once(request())) for _ in range(3))
        while not engine.in_flight:
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        release.set()
        assert await first is ANSWER and await third is ANSWER
        assert engine.calls == 2

    asyncio.run(main())


def test_nothing_is_asked_while_somebody_else_may_be_at_work() -> None:
    async def main() -> None:
        engine = ScriptedEngine(failing())
        dispatcher, stop = dispatcher_of(engine), Stop()
        stop.trust_until(time.monotonic())
        asking = asyncio.create_task(dispatcher.ask(request(), stop))
        await asyncio.sleep(0.05)
        assert engine.calls == 0
        stop.trust_until(time.monotonic())
        await asyncio.sleep(0.05)
        assert engine.calls == 0
        stop.trust_until(time.monotonic() + 60)
        assert await asking is ANSWER
        stop.trust_until(time.monotonic())
        asking = asyncio.create_task(dispatcher.ask(request(), stop))
        await asyncio.sleep(0.05)
        stop.request(Why.LEAVING, 0)
        with pytest.raises(Stopped):
            await asking
        assert engine.calls == 1

    asyncio.run(main())
