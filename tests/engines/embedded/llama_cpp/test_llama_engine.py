"""The engine on llama.cpp as its callers see it, in its own process: mostly a tiny model in float32, whose numbers are
exact however rows are batched, and SmolLM2 for what needs a language."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")

from tiny_gguf import TinyModel, tiny_model, token_ids

from gristmill.engines.embedded.llama_cpp.engine import LlamaCppEngine, LlamaCppOptions
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import ChoiceDelta, Completion, LabelRequest
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.completions import CompletionRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}<assistant>"
RUBRIC = "Grade every row from zero to ten, by the rules that follow. " * 5
#: float32 throughout, so that no rounding depends on what else is in a step.
EXACT = LlamaCppOptions(kv_cache_gb=0.02, threads=1, kv_type="f32", flash_attention="off")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LlamaCppEngine]:
    model = TinyModel(tmp_path_factory.mktemp("models") / "tiny.gguf").sizes().vocabulary()
    model.writer.add_chat_template(TEMPLATE)
    engine = LlamaCppEngine(EXACT, str(model.weights().write()))
    await engine.start()
    yield engine
    await engine.stop()


def complete(prompt: str, **parameters: Any) -> CompletionRequest:
    defaults = {"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 8}
    return msgspec.convert(defaults | parameters, CompletionRequest)


def chat(text: str, **parameters: Any) -> ChatCompletionRequest:
    messages = [{"role": "system", "content": RUBRIC}, {"role": "user", "content": text}]
    defaults = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 8}
    return msgspec.convert(defaults | parameters, ChatCompletionRequest)


def texts(answers: list[Completion]) -> list[str]:
    return [choice.text for answer in answers for choice in answer.choices]


async def next_logprob(engine: LlamaCppEngine, prompt: str, letter: str) -> float:
    """What the model gives a letter after the prompt, by making it the only choice."""
    bias = {str(token_ids(letter)[0]): 100}
    answer = await engine.complete(complete(prompt, max_tokens=1, logprobs=2, logit_bias=bias))
    logprobs = answer.choices[0].logprobs
    assert logprobs and logprobs[0].token == letter
    return logprobs[0].logprob


async def test_what_computes_is_told_once_it_has_started(engine: LlamaCppEngine) -> None:
    computing = engine.capabilities.computing
    assert computing is not None and computing.on.startswith("the CPU") and "llama.cpp 0." in computing.on


async def test_rows_together_answer_as_alone(engine: LlamaCppEngine) -> None:
    requests = [chat(f"row {row}{' more' * (row % 5)}", max_tokens=12, logprobs=True) for row in range(40)]
    together = await asyncio.gather(*map(engine.complete, requests))
    alone = [await engine.complete(request) for request in requests[:6]]
    assert texts(alone) == texts(together[:6])
    for one, other in zip(alone, together, strict=False):
        found, expected = ([token.logprob for token in each.choices[0].logprobs or ()] for each in (one, other))
        assert found == pytest.approx(expected, abs=1e-4)


async def test_what_rows_share_is_computed_once_and_counted_exactly(engine: LlamaCppEngine) -> None:
    await engine.complete(chat("first"))
    shared = len(token_ids(f"<system>{RUBRIC}\n<user>"))
    answers = await asyncio.gather(*(engine.complete(chat(f"{row} of them")) for row in "abcdefgh"))
    assert [answer.cached_tokens for answer in answers] == [shared] * 8
    assert all(answer.prompt_tokens > shared for answer in answers)


async def test_labels_have_the_probabilities_that_the_model_gives_token_by_token(engine: LlamaCppEngine) -> None:
    prompt = RUBRIC + "So the grade is "
    one, ten, seven = (await engine.score(LabelRequest("tiny", prompt, ["1", "10", "7"]))).logprobs
    first, then = await next_logprob(engine, prompt, "1"), await next_logprob(engine, prompt + "1", "0")
    assert ten == pytest.approx(first + then, abs=1e-4)
    assert one == pytest.approx(first + math.log(1 - math.exp(then)), abs=1e-4)
    assert seven == pytest.approx(await next_logprob(engine, prompt, "7"), abs=1e-4)


async def test_scores_are_the_same_alone_and_in_a_crowd(engine: LlamaCppEngine) -> None:
    labels = [str(number) for number in range(11)] + ["ninety-nine", "ninety"]
    requests = [LabelRequest("tiny", f"{RUBRIC}Row {row}: ", labels) for row in range(24)]
    crowd = await asyncio.gather(*map(engine.score, requests))
    for request, scores in zip(requests[:4], crowd, strict=False):
        alone = await engine.score(request)
        assert scores.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert alone.cached_tokens > len(token_ids(RUBRIC))


async def test_a_seed_determines_the_answer_whatever_else_runs(engine: LlamaCppEngine) -> None:
    def ask(seed: int) -> ChatCompletionRequest:
        return chat("a story", temperature=1.0, seed=seed, n=2, max_tokens=20)

    one, other, third = await asyncio.gather(*(engine.complete(ask(seed)) for seed in (1, 1, 2)))
    assert texts([one]) == texts([other])
    assert texts([one]) != texts([third])
    assert one.choices[0].text != one.choices[1].text


async def test_constrained_rows_answer_validly_and_skip_what_is_forced(engine: LlamaCppEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}},
        "required": ["score"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "grade", "schema": schema}}
    rows = (engine.complete(chat(f"row {row}", max_tokens=40, response_format=form)) for row in range(12))
    for answer in await asyncio.gather(*rows):
        assert 0 <= msgspec.json.decode(answer.choices[0].text)["score"] <= 10
        assert answer.choices[0].finish_reason == "stop"
        assert answer.forced_tokens >= len('{"score":}')


async def test_streamed_text_and_stop_strings(engine: LlamaCppEngine) -> None:
    pieces: list[ChoiceDelta] = []
    whole = await engine.complete(complete("stream", max_tokens=30), pieces.append)
    assert "".join(piece.text for piece in pieces) == whole.choices[0].text
    text = whole.choices[0].text
    stop = text[6:9]
    answer = await engine.complete(complete("stream", max_tokens=30, stop=stop))
    assert answer.choices[0].text == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


async def test_a_cancelled_request_leaves_its_place_to_others(engine: LlamaCppEngine) -> None:
    endless = [engine.complete(complete(f"{row}", max_tokens=3000, logit_bias={"2": -100})) for row in range(8)]
    tasks = [asyncio.create_task(each) for each in endless]
    await asyncio.sleep(0.2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    before = await engine.complete(complete("after", max_tokens=4))
    assert before.completion_tokens == 4


async def test_more_than_the_cache_holds_takes_turns(tmp_path: Path) -> None:
    options = msgspec.structs.replace(EXACT, kv_cache_gb=0.0008)
    engine = LlamaCppEngine(options, str(tiny_model(tmp_path / "tiny.gguf")))
    await engine.start()
    try:
        room = engine.capabilities.context_length
        assert room is not None and room < 1000
        requests = [complete(f"{row} " * 40, max_tokens=100, logit_bias={"2": -100}) for row in range(20)]
        answers = await asyncio.gather(*map(engine.complete, requests))
        assert texts(answers[:3]) == texts([await engine.complete(request) for request in requests[:3]])
        with pytest.raises(EngineError) as caught:
            await engine.complete(complete("x" * room))
        assert caught.value.code == "context_length_exceeded"
    finally:
        await engine.stop()


async def test_a_model_without_a_chat_template_says_so_and_completes_text(tmp_path: Path) -> None:
    engine = LlamaCppEngine(EXACT, str(tiny_model(tmp_path / "tiny.gguf")))
    await engine.start()
    try:
        with pytest.raises(EngineError, match="no chat template"):
            await engine.complete(chat("x"))
        assert (await engine.complete(complete("x", max_tokens=3))).completion_tokens == 3
    finally:
        await engine.stop()


async def test_what_cannot_be_loaded_is_one_sentence_at_the_start(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny.gguf", "brontosaurus")
    with pytest.raises(UserError, match="unknown model architecture: 'brontosaurus'"):
        await LlamaCppEngine(EXACT, str(path)).start()
    with pytest.raises(UserError, match="has no llama.cpp library"):
        await LlamaCppEngine(msgspec.structs.replace(EXACT, library=str(tmp_path)), str(path)).start()


async def test_the_registry_makes_it_from_options_as_text() -> None:
    options = {"gpu_layers": "7", "kv_type": "q8_0", "library": "/somewhere"}
    engine = create_engine(EngineSettings("llama_cpp", "some.gguf", options=options))
    assert isinstance(engine, LlamaCppEngine)
    assert engine._options == LlamaCppOptions(gpu_layers=7, kv_type="q8_0", library="/somewhere")
    with pytest.raises(UserError, match="kv_type"):
        create_engine(EngineSettings("llama_cpp", options={"kv_type": "q2"}))


async def test_a_language_model_answers_a_chat(pulled_model: str) -> None:
    engine = LlamaCppEngine(LlamaCppOptions(kv_cache_gb=0.1, threads=1), pulled_model)
    await engine.start()
    try:
        request = complete("The capital of France is", model=pulled_model, max_tokens=1, logprobs=5)
        answer = await engine.complete(request)
        assert answer.choices[0].text == " Paris"
        # The float32 reference says -0.258; llama.cpp rounds what it multiplies with 4-bit weights to 8 bits.
        assert answer.choices[0].logprobs and answer.choices[0].logprobs[0].logprob == pytest.approx(-0.258, abs=0.15)
        answer = await engine.complete(chat("Say hi.", model=pulled_model, max_tokens=60))
        assert answer.choices[0].text and "<|im_end|>" not in answer.choices[0].text
    finally:
        await engine.stop()
