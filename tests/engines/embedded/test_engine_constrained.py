"""Constrained output of the embedded engine, with its real model."""

from __future__ import annotations

import asyncio
import json
import re

import jsonschema
import msgspec
import pytest
import pytest_asyncio

from gristmill.engines.embedded.llama_cpp.engine import LlamaCppEngine, LlamaCppOptions
from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import Completion
from gristmill.telemetry.metrics import REGISTRY
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.completions import CompletionRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}},
    "required": ["score"],
    "additionalProperties": False,
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["old", "young", "wise"]}, "maxItems": 3},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string", "maxLength": 20},
                "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
            },
            "required": ["street", "zip"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "tags", "address"],
    "additionalProperties": False,
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["openvino", "llama_cpp"])
async def engine(request, pulled_model):
    if request.param == "openvino":
        engine = OpenVinoEngine(OpenVinoOptions(kv_cache_gb=0.5, step_tokens=256), pulled_model)
    else:
        pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")
        engine = LlamaCppEngine(LlamaCppOptions(kv_cache_gb=0.5, step_tokens=256, threads=1), pulled_model)
    await engine.start()
    yield engine
    await engine.stop()


def chat(text: str, **parameters) -> ChatCompletionRequest:
    messages = [{"role": "system", "content": "Judge the bread of the mill."}, {"role": "user", "content": text}]
    defaults = {"model": "smollm2-135m-instruct", "temperature": 0, "max_tokens": 120}
    return msgspec.convert({"messages": messages} | defaults | parameters, ChatCompletionRequest)


def schema(wanted: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": wanted}}


async def only_text(engine: OpenVinoEngine, request) -> str:
    completion = await engine.complete(request)
    assert [choice.finish_reason for choice in completion.choices] == ["stop"]
    return completion.choices[0].text


async def refused(engine: OpenVinoEngine, **parameters) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await engine.complete(chat("How is it?", **parameters))
    assert caught.value.kind is ErrorKind.INVALID_REQUEST
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("wanted", [SCORE, PERSON])
@pytest.mark.parametrize("temperature", [0, 1.5])
async def test_every_answer_to_a_json_schema_is_valid(engine, wanted, temperature):
    requests = [
        chat(f"Loaf {i}?", response_format=schema(wanted), temperature=temperature, seed=i, max_tokens=300)
        for i in range(12)
    ]
    answers = await asyncio.gather(*(only_text(engine, request) for request in requests))
    for answer in answers:
        jsonschema.validate(json.loads(answer), wanted)


async def test_what_the_schema_forces_is_not_decoded_and_is_counted(engine):
    before = REGISTRY.get_sample_value("gristmill_forced_tokens_total")
    completion = await engine.complete(chat("Loaf?", response_format=schema(SCORE)))
    # Of {"score":7} only the number is left to the model, and after a 1, which may become 10, whether it ends.
    assert completion.completion_tokens - completion.forced_tokens <= 2
    assert completion.forced_tokens >= 3
    assert REGISTRY.get_sample_value("gristmill_forced_tokens_total") == before + completion.forced_tokens


async def test_forced_text_changes_no_answer(engine):
    def request(loaf: int, **parameters) -> ChatCompletionRequest:
        return chat(f"How good is loaf {loaf}?", response_format=schema(SCORE), **parameters)

    jumping = [await only_text(engine, request(loaf)) for loaf in range(8)]
    # A row that wants log-probabilities goes token by token.
    stepping = [await engine.complete(request(loaf, logprobs=True)) for loaf in range(8)]
    assert [each.choices[0].text for each in stepping] == jumping
    assert [each.forced_tokens for each in stepping] == [0] * 8
    logprobs = stepping[0].choices[0].logprobs
    assert logprobs is not None
    assert "".join(each.token for each in logprobs) == jumping[0]


async def test_constrained_rows_answer_in_a_wave_as_alone(engine):
    if engine.name == "llama_cpp":
        pytest.skip("how llama.cpp rounds beside 4-bit weights depends on what else is in a step")
    requests = [chat(f"Loaf {i}?", response_format=schema(PERSON)) for i in range(10)]
    requests += [chat(f"Loaf {i}?", max_tokens=20) for i in range(10)]
    alone = [await engine.complete(request) for request in requests]
    together = await asyncio.gather(*(engine.complete(request) for request in requests))
    assert [each.choices[0].text for each in together] == [each.choices[0].text for each in alone]


async def test_a_row_that_made_room_keeps_its_place_in_the_grammar(pulled_model):
    # 46 blocks of 16 tokens or so: far too few for the rows at once.
    small = OpenVinoEngine(OpenVinoOptions(kv_cache_gb=0.02, step_tokens=256), pulled_model)
    await small.start()
    try:
        requests = [chat(f"Loaf {i} " * 8, response_format=schema(PERSON), max_tokens=200) for i in range(10)]
        together = await asyncio.gather(*(small.complete(request) for request in requests))
        alone = [await small.complete(request) for request in requests]
    finally:
        await small.stop()
    assert [each.choices[0].text for each in together] == [each.choices[0].text for each in alone]
    for each in together:
        jsonschema.validate(json.loads(each.choices[0].text), PERSON)


async def test_json_object_without_a_schema_is_json(engine):
    completion = await engine.complete(chat("A loaf as JSON.", response_format={"type": "json_object"}, max_tokens=400))
    text, reason = completion.choices[0].text, completion.choices[0].finish_reason
    assert text.startswith("{")
    if reason == "stop":
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    "choices", [["yes", "no"], ["1", "10", "100"], ["Ja, natürlich – 日本", "nein"], ['a "quoted" \\ text']]
)
async def test_a_choice_is_one_of_the_choices(engine, choices):
    requests = [chat(f"Choose {i}.", structured_outputs={"choice": choices}, temperature=1.5, seed=i) for i in range(6)]
    answers = await asyncio.gather(*(only_text(engine, request) for request in requests))
    assert set(answers) <= set(choices)


@pytest.mark.parametrize("regex", [r"[a-c]{3}-\d\d", r"(grain|flour)/(stone|steel)", r"\w+ \d+%"])
async def test_an_answer_matches_its_regular_expression(engine, regex):
    answer = await engine.complete(chat("Loaf?", structured_outputs={"regex": regex}, temperature=1, seed=3))
    if answer.choices[0].finish_reason == "stop":
        assert re.fullmatch(regex, answer.choices[0].text)


async def test_a_schema_may_come_as_structured_outputs_and_for_text_completions(engine):
    request = {"model": "smollm2-135m-instruct", "prompt": "The bread's score:", "max_tokens": 20, "temperature": 0}
    for wanted in (SCORE, json.dumps(SCORE)):
        constrained = msgspec.convert(request | {"structured_outputs": {"json": wanted}}, CompletionRequest)
        jsonschema.validate(json.loads(await only_text(engine, constrained)), SCORE)


async def test_the_limits_of_free_text_hold_for_forced_text(engine):
    short = await engine.complete(chat("Loaf?", response_format=schema(SCORE), max_tokens=3))
    assert short.choices[0].finish_reason == "length"
    assert short.completion_tokens == 3
    stopped = await engine.complete(chat("Loaf?", response_format=schema(SCORE), stop=["ore"]))
    assert stopped.choices[0].text == '{"sc'
    assert stopped.choices[0].finish_reason == "stop"


async def test_an_answer_that_is_forced_whole_needs_no_step(engine):
    completion = await engine.complete(chat("Say it.", structured_outputs={"choice": ["the only choice"]}, n=2))
    assert [choice.text for choice in completion.choices] == ["the only choice"] * 2
    assert completion.forced_tokens == completion.completion_tokens
    assert completion.prompt_tokens > 10


async def test_forced_text_is_streamed(engine):
    pieces: list[str] = []
    request = chat("Loaf?", response_format=schema(SCORE))
    completion: Completion = await engine.complete(request, lambda delta: pieces.append(delta.text))
    assert "".join(pieces) == completion.choices[0].text
    assert pieces[0].startswith('{"score"')


async def test_cached_tokens_never_exceed_the_prompt(engine):
    request = chat("The same loaf again?", response_format=schema(SCORE))
    await engine.complete(request)
    again = await engine.complete(request)
    assert 0 < again.cached_tokens <= again.prompt_tokens


async def test_what_makes_no_grammar_is_refused_with_the_reason(engine):
    error = await refused(engine, response_format=schema({"type": "wrong"}))
    assert error.param == "response_format.json_schema.schema"
    assert "wrong" in error.message
    error = await refused(engine, structured_outputs={"regex": "(a"})
    assert error.param == "structured_outputs.regex"
    assert "unclosed group" in error.message
    assert (await refused(engine, structured_outputs={"choice": []})).param == "structured_outputs.choice"
    assert (await refused(engine, structured_outputs={"regex": ""})).param == "structured_outputs.regex"
    error = await refused(engine, structured_outputs={"grammar": "root ::= x"})
    assert error.code == "unsupported_parameter"
    assert "structured_outputs.grammar" in error.message
    error = await refused(engine, structured_outputs={"regex": "a"}, response_format={"type": "json_object"})
    assert error.param == "structured_outputs"


async def test_a_grammar_that_cannot_be_followed_fails_its_row_alone(engine):
    # Far beyond what llguidance follows.
    wild = {"regex": "(" + "|".join(f"(a{{0,{n}}}b?){{0,90}}" for n in range(1, 60)) + ")"}
    good = chat("Loaf?", response_format=schema(SCORE))
    bad = chat("Loaf?", structured_outputs=wild)
    results = await asyncio.gather(
        engine.complete(good), engine.complete(bad), engine.complete(good), return_exceptions=True
    )
    assert isinstance(results[0], Completion)
    assert isinstance(results[2], Completion)
    assert isinstance(results[1], EngineError)
    assert results[1].param == "structured_outputs.regex"
    assert results[1].code == "grammar_too_complex"


async def test_a_schema_that_leaves_properties_open_is_closed_and_ends_at_once(engine):
    open_score = {name: value for name, value in SCORE.items() if name != "additionalProperties"}
    for wanted in (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": open_score}}},
        {"structured_outputs": {"json": open_score}},
    ):
        completions = await asyncio.gather(
            *(engine.complete(chat(f"Loaf {i}?", seed=i, temperature=1, **wanted)) for i in range(5))
        )
        for completion in completions:
            (choice,) = completion.choices
            assert choice.finish_reason == "stop" and completion.completion_tokens <= 8
            assert json.loads(choice.text).keys() == {"score"}


async def test_what_cannot_be_enforced_is_refused_only_where_strict_is_asked_for(engine):
    unique = {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "maxItems": 2}
    loose = {"type": "json_schema", "json_schema": {"name": "s", "schema": unique}}
    jsonschema.validate(json.loads(await only_text(engine, chat("x", response_format=loose))), {"type": "array"})
    error = await refused(engine, response_format=schema(unique))
    assert error.param == "response_format.json_schema.schema" and "uniqueItems" in error.message
