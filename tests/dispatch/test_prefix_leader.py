"""Leader first: a prefix is computed by one row, and its siblings wait for that, but for nothing else."""

from __future__ import annotations

import asyncio
import json
import random

import msgspec
import pytest

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.outage import Outage
from gristmill.dispatch.prefix_leader import PrefixLeaders
from gristmill.dispatch.retry import RetryPolicy
from gristmill.dispatch.stop import Stop, Stopped, Why
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.prompt_parts import prompt_parts, shared_prefix
from gristmill.engines.protocol import Capabilities, Choice, Completion, ForwardedAnswer, ForwardRequest
from gristmill.inference.forwarding import chat_request
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest

RUBRIC = "Score each candidate by the rules. " * 100
ANSWER = Completion("m", (Choice("yes", "stop"),), 1, 1)


class SharedCache:
    """An engine whose slots share one prefix cache: it counts who computes a rubric that is being computed already."""

    name = "shared"
    models = ("m",)

    def __init__(self, slots: int = 16, leader_first: bool = True) -> None:
        self.capabilities = Capabilities(slots, frozenset(), leader_first=leader_first)
        self.computed: dict[str, int] = {}
        self.ready: set[str] = set()
        self.in_flight = self.most_in_flight = 0
        self.fail_next: list[ErrorKind] = []

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def complete(self, request, on_delta=None, *, interactive=False) -> Completion:
        rubric = request.messages[0].text()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if rubric not in self.ready:
                self.computed[rubric] = self.computed.get(rubric, 0) + 1
            await asyncio.sleep(0.002)
            if self.fail_next:
                raise EngineError(self.fail_next.pop(), "a failure")
            self.ready.add(rubric)
            return ANSWER
        finally:
            self.in_flight -= 1


class PassingOn(SharedCache):
    async def forward(self, request, on_event=None, *, interactive=False) -> ForwardedAnswer:
        await self.complete(msgspec.json.decode(request.body, type=ChatCompletionRequest))
        return ForwardedAnswer(request.body, 1, 1)


def row(number: int, rubric: str = RUBRIC) -> ChatCompletionRequest:
    return ChatCompletionRequest([Message("system", rubric), Message("user", f"Candidate {number}")], "m")


def dispatcher_of(engine: SharedCache) -> Dispatcher:
    dispatcher = Dispatcher(engine, policy=RetryPolicy(3, 0.001, 0.002))
    dispatcher.outage = Outage(first_delay=0.01, max_delay=0.01)
    return dispatcher


async def run(engine: SharedCache, rows: list[ChatCompletionRequest]) -> list:
    dispatcher, never = dispatcher_of(engine), Stop()
    return await asyncio.gather(*(dispatcher.ask(each, never) for each in rows), return_exceptions=True)


async def test_a_prefix_is_computed_once_and_then_its_rows_go_together():
    engine = SharedCache()
    assert await run(engine, [row(n) for n in range(40)]) == [ANSWER] * 40
    assert engine.computed == {RUBRIC: 1}
    assert engine.most_in_flight == 16


async def test_without_it_every_slot_computes_the_prefix():
    engine = SharedCache(leader_first=False)
    await run(engine, [row(n) for n in range(40)])
    assert engine.computed == {RUBRIC: 16}


async def test_rows_of_different_prefixes_do_not_wait_for_one_another():
    engine = SharedCache()
    await run(engine, [row(n, f"{n} {RUBRIC}") for n in range(16)])
    assert engine.most_in_flight == 16


async def test_rows_without_a_long_prefix_do_not_wait():
    engine = SharedCache()
    await run(engine, [row(n, "Be brief.") for n in range(16)])
    assert engine.most_in_flight == 16


@pytest.mark.parametrize("kind", list(ErrorKind))
async def test_a_leader_that_fails_hands_over_and_no_row_is_lost(kind):
    engine = SharedCache()
    engine.fail_next = [kind]
    results = await run(engine, [row(n) for n in range(20)])
    lost = 1 if kind is ErrorKind.INVALID_REQUEST else 0
    assert results.count(ANSWER) == 20 - lost
    assert engine.computed == {RUBRIC: 2}


async def test_a_prefix_is_cold_again_after_the_engine_was_away():
    engine = SharedCache()
    dispatcher, never = dispatcher_of(engine), Stop()
    await dispatcher.ask(row(0), never)
    # It restarts: the cache is empty, and the first to ask finds it away.
    engine.fail_next, engine.ready = [ErrorKind.UNAVAILABLE], set()
    await dispatcher.ask(row(1, f"other {RUBRIC}"), never)
    engine.computed.clear()
    await asyncio.gather(*(dispatcher.ask(row(n), never) for n in range(2, 12)))
    assert engine.computed == {RUBRIC: 1}


async def test_a_cancelled_leader_hands_over():
    engine = SharedCache()
    dispatcher, never = dispatcher_of(engine), Stop()
    leader = asyncio.ensure_future(dispatcher.ask(row(0), never))
    siblings = [asyncio.ensure_future(dispatcher.ask(row(n), never)) for n in range(1, 9)]
    await asyncio.sleep(0.0005)
    leader.cancel()
    assert await asyncio.gather(*siblings) == [ANSWER] * 8
    assert engine.computed == {RUBRIC: 2}


async def test_who_waits_for_a_leader_is_given_up_at_once():
    engine = SharedCache()
    dispatcher, stop = dispatcher_of(engine), Stop()
    rows = [asyncio.ensure_future(dispatcher.ask(row(n), stop)) for n in range(5)]
    await asyncio.sleep(0.0005)
    stop.request(Why.LEAVING, 600)
    results = await asyncio.gather(*rows, return_exceptions=True)
    # The leader is left to finish.
    assert results[0] == ANSWER
    assert all(isinstance(each, Stopped) for each in results[1:])


def test_never_more_than_one_leader_and_a_bounded_memory():
    chosen = random.Random(5)
    leaders = PrefixLeaders(remembered=8)
    leading: set[int] = set()
    for _ in range(5000):
        prefix = chosen.randrange(40)
        if prefix in leading:
            assert leaders.busy(prefix)
            if chosen.random() < 0.7:
                leaders.release(prefix, computed=chosen.random() < 0.8)
                leading.remove(prefix)
        elif leaders.claim(prefix):
            leading.add(prefix)
    assert len(leaders._computed) <= 8


def shared(*texts: str, model: str = "m") -> int | None:
    messages = [*(Message("system", text) for text in texts[:-1]), Message("user", texts[-1])]
    return shared_prefix(model, prompt_parts(ChatCompletionRequest(messages, model)))


def test_what_a_row_shares_is_all_before_its_last_message():
    same = [shared(RUBRIC, f"Candidate {n}") for n in range(3)]
    assert same[0] is not None
    assert len(set(same)) == 1
    assert shared(RUBRIC + "!", "Candidate 0") != same[0]
    assert shared(RUBRIC, "Candidate 0", model="other") != same[0]


def test_a_prompt_that_is_one_text_shares_its_beginning():
    def of(prompt: object) -> int | None:
        return shared_prefix("m", prompt_parts(CompletionRequest(prompt, "m")))

    texts = [RUBRIC + f"Candidate {n}" for n in range(3)]
    assert len({of(text) for text in texts}) == 1
    assert len({shared(text) for text in texts}) == 1
    assert of("x" + texts[0]) != of(texts[0])
    assert of("short") is None
    assert shared("short") is None
    tokens = list(range(3000))
    assert of(tokens) == of([*tokens[:-1], 7]) is not None


def forwarded(rubric: str, own: str, **fields: object) -> ForwardRequest:
    messages = [{"role": "system", "content": rubric}, {"role": "user", "content": own}]
    return chat_request("/v1/chat/completions", json.dumps({"model": "m", "messages": messages, **fields}).encode())


def test_what_is_passed_on_as_it_came_has_the_same_leaders():
    def of(request: ForwardRequest) -> int | None:
        return shared_prefix("m", prompt_parts(request))

    same = of(forwarded(RUBRIC, "1"))
    assert same is not None and same == of(forwarded(RUBRIC, "2", temperature=0))
    assert of(forwarded("Be brief.", "1")) is None
    # Templates write tools before the messages.
    assert of(forwarded(RUBRIC, "1", tools=[{"type": "function"}])) not in (same, None)


async def test_rows_that_are_passed_on_wait_for_their_leader_and_are_tried_again():
    engine = PassingOn()
    engine.fail_next = [ErrorKind.UNAVAILABLE, ErrorKind.INTERRUPTED]
    dispatcher, never = dispatcher_of(engine), Stop()
    rows = [forwarded(RUBRIC, f"Candidate {n}") for n in range(40)]
    answers = await asyncio.gather(*(dispatcher.ask(each, never) for each in rows))
    assert [answer.body for answer in answers] == [each.body for each in rows]
    assert engine.computed == {RUBRIC: 3}
