"""Label scores of the real model agree with what the model says token by token."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import LabelRequest
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "smollm2-135m-instruct"
PROMPT = "On a scale from 0 to 10, the number of legs of a spider is " + "very " * 40 + "close to "
LABELS = [str(number) for number in range(11)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(pulled_model: str) -> AsyncIterator[OpenVinoEngine]:
    engine = OpenVinoEngine(OpenVinoOptions(kv_cache_gb=0.25), pulled_model)
    await engine.start()
    yield engine
    await engine.stop()


async def next_logprob(engine: OpenVinoEngine, prompt: str, token: str) -> float:
    """What the model gives ``token`` after ``prompt``, by making it the only choice."""
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 1, "logprobs": 5, "temperature": 0}
    request = msgspec.convert(body | {"logit_bias": {str(await token_id(engine, token)): 100}}, CompletionRequest)
    completion = await engine.complete(request)
    logprobs = completion.choices[0].logprobs
    assert logprobs and logprobs[0].token == token
    return logprobs[0].logprob


async def token_id(engine: OpenVinoEngine, token: str) -> int:
    from gristmill.engines.embedded.openvino.prepare import prepare
    from gristmill.engines.embedded.openvino.vocabulary import ModelVocabulary
    from gristmill.models.locate import locate

    vocabulary = ModelVocabulary(prepare(locate(MODEL), "f16").folder)
    (number,) = vocabulary.encode(token, special_tokens=False)
    return number


async def test_single_token_labels_have_the_models_own_log_probability(engine: OpenVinoEngine) -> None:
    scores = await engine.score(LabelRequest(MODEL, PROMPT, ["7", "8"]))
    for label, logprob in zip(["7", "8"], scores.logprobs, strict=True):
        assert logprob == pytest.approx(await next_logprob(engine, PROMPT, label), abs=1e-3)


async def test_ten_is_one_then_zero_and_one_leaves_ten_out(engine: OpenVinoEngine) -> None:
    one, ten = (await engine.score(LabelRequest(MODEL, PROMPT, ["1", "10"]))).logprobs
    first = await next_logprob(engine, PROMPT, "1")
    then = await next_logprob(engine, PROMPT + "1", "0")
    assert ten == pytest.approx(first + then, abs=1e-3)
    assert one == pytest.approx(first + math.log(1 - math.exp(then)), abs=1e-3)


async def test_scores_are_the_same_alone_in_a_crowd_and_from_the_cache(engine: OpenVinoEngine) -> None:
    alone = await engine.score(LabelRequest(MODEL, PROMPT, LABELS))
    crowd = await asyncio.gather(*(engine.score(LabelRequest(MODEL, PROMPT, LABELS)) for _ in range(30)))
    for scores in crowd:
        assert scores.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        # Whole blocks are shared; the second one is not full.
        assert scores.cached_tokens == 32


async def test_label_order_is_the_callers(engine: OpenVinoEngine) -> None:
    there = (await engine.score(LabelRequest(MODEL, PROMPT, LABELS))).logprobs
    back = (await engine.score(LabelRequest(MODEL, PROMPT, LABELS[::-1]))).logprobs
    assert list(there) == pytest.approx(list(back[::-1]), abs=1e-4)


@pytest.mark.parametrize(
    ("prompt", "labels", "param"),
    [(PROMPT, [10**9], "label_token_ids"), ("word " * 9000, ["1"], "query")],
)
async def test_what_cannot_be_scored_is_refused_by_name(
    engine: OpenVinoEngine, prompt: str, labels: list[str] | list[int], param: str
) -> None:
    with pytest.raises(EngineError) as refused:
        await engine.score(LabelRequest(MODEL, prompt, labels))
    assert refused.value.param == param


async def test_a_cancelled_scoring_leaves_the_engine_working(engine: OpenVinoEngine) -> None:
    asking = asyncio.create_task(engine.score(LabelRequest(MODEL, PROMPT * 10, LABELS)))
    await asyncio.sleep(0)
    asking.cancel()
    assert len((await engine.score(LabelRequest(MODEL, PROMPT, LABELS))).logprobs) == 11


async def test_a_begun_answer_is_what_the_labels_come_after(engine: OpenVinoEngine) -> None:
    turns = [("system", "Answer with a number."), ("user", "How many legs has a spider?"), ("assistant", "Legs:")]
    prompt = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns).removesuffix("<|im_end|>\n")
    messages = [Message(role, text) for role, text in turns]
    continued = await engine.score(LabelRequest(MODEL, messages, LABELS, continue_final_message=True))
    written = await engine.score(LabelRequest(MODEL, prompt, LABELS))
    assert continued.prompt_tokens == written.prompt_tokens
    assert continued.logprobs == pytest.approx(written.logprobs, abs=1e-3)
    opened = await engine.score(LabelRequest(MODEL, messages, LABELS))
    closed = await engine.score(LabelRequest(MODEL, messages, LABELS, add_generation_prompt=False))
    assert opened.prompt_tokens > closed.prompt_tokens > continued.prompt_tokens
    with pytest.raises(EngineError) as caught:
        await engine.score(LabelRequest(MODEL, messages, LABELS, True, True))
    assert caught.value.param == "continue_final_message"


async def test_a_chat_completion_continues_a_begun_answer(engine: OpenVinoEngine) -> None:
    body = {
        "model": MODEL, "temperature": 0, "max_tokens": 4, "continue_final_message": True,
        "messages": [{"role": "user", "content": "Name a fruit."}, {"role": "assistant", "content": "A red app"}],
    }  # fmt: skip
    completion = await engine.complete(msgspec.convert(body, ChatCompletionRequest))
    assert completion.choices[0].text.startswith("le")
