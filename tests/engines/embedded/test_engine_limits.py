"""What is too large, or no request at all, is refused by name and number; nothing is cut, and nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from gristmill.engines.embedded.grammar import MOST_BYTES, MOST_CHOICES, MOST_REMAINDERS
from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
from gristmill.engines.embedded.preparation import MOST_LABEL_BYTES, MOST_LABEL_TOKENS
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import LabelRequest
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "smollm2-135m-instruct"
#: 20,001 tokens: the last space is one of its own.
LONG = "word " * 20_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(pulled_model: str) -> AsyncIterator[OpenVinoEngine]:
    engine = OpenVinoEngine(OpenVinoOptions(kv_cache_gb=0.5), pulled_model)
    await engine.start()
    yield engine
    await engine.stop()


def chat(text: str, **parameters) -> ChatCompletionRequest:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 4, "temperature": 0}
    return msgspec.convert(body | parameters, ChatCompletionRequest)


def complete(prompt: str | list[int], **parameters) -> CompletionRequest:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 4, "temperature": 0}
    return msgspec.convert(body | parameters, CompletionRequest)


async def refusal(engine: OpenVinoEngine, request: ChatCompletionRequest | CompletionRequest | LabelRequest):
    with pytest.raises(EngineError) as caught:
        await (engine.score(request) if isinstance(request, LabelRequest) else engine.complete(request))
    assert caught.value.kind is ErrorKind.INVALID_REQUEST
    assert caught.value.status == 400
    assert len(caught.value.message) < 1000
    return caught.value


async def test_a_prompt_that_is_too_long_is_refused_with_its_true_number_of_tokens(engine):
    for request, param, number in (
        (LabelRequest(MODEL, LONG, ["yes", "no"]), "query", "20001 in the prompt"),
        (LabelRequest(MODEL, [Message("user", LONG)], ["yes", "no"]), "messages", " in the prompt"),
        (complete(LONG), "prompt", "20001 in the prompt"),
        (complete([5] * 20_001), "prompt", "20001 in the prompt"),
        (chat(LONG), "messages", " in the prompt"),
    ):
        error = await refusal(engine, request)
        assert (error.code, error.param) == ("context_length_exceeded", param)
        assert "context length is 8192 tokens" in error.message
        assert number in error.message
        assert "8192 in the prompt" not in error.message


async def test_a_prompt_that_no_tokens_could_make_fit_is_refused_by_its_size(engine):
    for request in (
        complete("x" * 2_000_000), chat("x" * 2_000_000), LabelRequest(MODEL, "x" * 2_000_000, ["yes", "no"]),
    ):  # fmt: skip
        error = await refusal(engine, request)
        assert error.code == "context_length_exceeded"
        assert "8192 tokens" in error.message
        assert "2,000,000 bytes" in error.message
    messages = [{"role": "user", "content": ""}] * 10_000
    assert "10,000 messages" in (await refusal(engine, chat("", messages=messages))).message


async def test_labels_are_bounded_in_bytes_and_tokens_and_by_the_context(engine):
    error = await refusal(engine, LabelRequest(MODEL, "One: ", [f"{i}{'x' * 100_000}" for i in range(30)]))
    assert error.param == "labels"
    assert "3,000,050 bytes" in error.message and f"{MOST_LABEL_BYTES:,}" in error.message
    error = await refusal(engine, LabelRequest(MODEL, "One: ", [f"{i} " + "a b " * 12 for i in range(1000)]))
    assert error.param == "labels"
    assert "tokens together" in error.message and f"{MOST_LABEL_TOKENS:,}" in error.message
    error = await refusal(engine, LabelRequest(MODEL, "One: ", ["word " * 10_000]))
    assert error.code == "context_length_exceeded"
    assert "10001 in the longest label" in error.message


async def test_long_labels_within_the_limits_are_scored(engine):
    labels = [f"{i}" + " word" * 300 for i in range(8)] + ["short", "1"]
    scores = await engine.score(LabelRequest(MODEL, "One: ", labels))
    assert len(scores.logprobs) == 10
    assert all(logprob < 0 for logprob in scores.logprobs)


async def test_more_labels_than_are_computed_at_a_time_are_scored_alike(engine):
    labels = [f"{chr(97 + i % 26)}{chr(97 + i // 26)} {i} mills" for i in range(200)]
    together = await engine.score(LabelRequest(MODEL, "The first of all is ", labels))
    halves = [await engine.score(LabelRequest(MODEL, "The first of all is ", labels[i::2])) for i in range(2)]
    assert list(together.logprobs[::2]) == pytest.approx(list(halves[0].logprobs), abs=1e-3)
    assert list(together.logprobs[1::2]) == pytest.approx(list(halves[1].logprobs), abs=1e-3)


async def test_grammars_are_bounded(engine):
    def outputs(**constraint):
        return chat("Say it.", structured_outputs=constraint)

    error = await refusal(engine, outputs(choice=[f"text {i}" for i in range(100_000)]))
    assert error.param == "structured_outputs.choice"
    assert "100,000" in error.message and f"{MOST_CHOICES:,}" in error.message
    error = await refusal(engine, outputs(regex="x" * 200_000))
    assert error.param == "structured_outputs.regex"
    assert f"{MOST_BYTES:,}" in error.message
    error = await refusal(engine, outputs(json={"enum": ["x" * 200_000]}))
    assert error.param == "structured_outputs.json"
    error = await refusal(engine, outputs(json={"anyOf": [{"multipleOf": each} for each in (991, 9.97, 0)]}))
    assert "988,027" in error.message and f"{MOST_REMAINDERS:,}" in error.message
    as_many = outputs(choice=[f"text {i}" for i in range(MOST_CHOICES)])
    assert (await engine.complete(as_many)).choices[0].text.startswith("text")


async def test_numbers_no_machine_holds_and_nesting_no_reader_follows_are_refused(engine):
    assert (await refusal(engine, chat("x", logit_bias={"1" * 5000: 1}))).param == "logit_bias"
    assert (await refusal(engine, complete([1, -1]))).param == "prompt"
    assert (await refusal(engine, complete([1, 2**63]))).param == "prompt"
    await refusal(engine, complete([1, 2**70]))
    await refusal(engine, LabelRequest(MODEL, "x", [2**70]))
    assert (await refusal(engine, LabelRequest(MODEL, "x", [-1]))).param == "label_token_ids"
    deep = {"json": "[" * 5000 + "]" * 5000}
    assert (await refusal(engine, chat("x", structured_outputs=deep))).param == "structured_outputs.json"
    deep = {"json": '{"items":' * 900 + "{}" + "}" * 900}
    assert (await refusal(engine, chat("x", structured_outputs=deep))).param == "structured_outputs.json"
    await refusal(engine, chat("x", structured_outputs={"json": {"type": "integer", "maximum": 2**70}}))
    await refusal(engine, complete("\ud800"))
    await refusal(engine, LabelRequest(MODEL, "x", ["\udfff"]))


def slow_requests() -> list[ChatCompletionRequest | CompletionRequest]:
    """Seconds of work each before there is anything to compute: a grammar to compile, a text to tokenize."""
    properties = {"properties": {f"p{i}": {} for i in range(3500)}}
    letters = "".join(random.Random(5).choice("abcdefgh") for _ in range(660_000))
    return [chat("x", structured_outputs={"json": properties}, max_tokens=1), complete(letters)]


async def test_other_rows_go_on_while_a_request_is_prepared(engine):
    requests = slow_requests()
    came: list[float] = []
    slow = 0
    story = chat("Tell a very long story.", max_tokens=4000, logit_bias={"2": -100})
    telling = asyncio.create_task(engine.complete(story, lambda delta: came.append(time.monotonic())))
    for request in requests:
        seen = len(came)
        while len(came) < seen + 6:
            await asyncio.sleep(0.01)
        usual = statistics.median(later - earlier for earlier, later in itertools.pairwise(came[-6:]))
        begin = time.monotonic()
        with contextlib.suppress(EngineError):
            await engine.complete(request)
        end = time.monotonic()
        during = sum(begin < moment < end for moment in came)
        if end - begin > 10 * usual:
            # Held up, the story would have been silent all the while.
            slow += 1
            assert during > 0
    telling.cancel()
    assert slow > 0


async def test_a_request_cancelled_while_it_is_prepared_leaves_nothing(engine):
    slow = [asyncio.create_task(engine.complete(request)) for request in slow_requests()]
    await asyncio.sleep(0.05)
    for task in slow:
        task.cancel()
    answer = await engine.complete(complete("The capital of France is", max_tokens=1))
    assert answer.choices[0].text == " Paris"


async def test_an_interactive_request_does_not_wait_for_the_batch_before_it(engine):
    done = 0

    async def row(number: int) -> None:
        nonlocal done
        await engine.complete(chat(f"Row {number}: tell a story.", max_tokens=16, logit_bias={"2": -100}))
        done += 1

    rows = [asyncio.create_task(row(number)) for number in range(120)]
    try:
        while not done:
            await asyncio.sleep(0.01)
        asked = chat("Tell a story.", max_tokens=16, logit_bias={"2": -100})
        await engine.complete(asked, interactive=True)
        score = await engine.score(LabelRequest(MODEL, "One and one is ", ["2", "3"]), interactive=True)
        assert len(score.logprobs) == 2
        # First come, first served, they would have been the last.
        assert done < 110
    finally:
        for task in rows:
            task.cancel()
        await asyncio.gather(*rows, return_exceptions=True)
