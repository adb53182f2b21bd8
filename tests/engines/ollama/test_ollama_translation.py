"""From OpenAI's parameters to Ollama's: all that can be said is said, the rest is refused by name."""

from __future__ import annotations

import msgspec
import pytest
from ollama_replay import MODEL, recording
from ollama_requests import SCHEMA, chat, complete

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.ollama.engine import OllamaEngine, OllamaOptions
from gristmill.engines.ollama.translation import Frozen, translate
from gristmill.engines.ollama.wire import Options
from gristmill.engines.parameters import check_parameters
from gristmill.wire.chat import ChatCompletionRequest, Message

FROZEN = Frozen("m", Options(num_ctx=4096), 4096, stops=("<|im_end|>",), default_num_predict=100)
ENGINE = OllamaEngine(OllamaOptions(), model="m")


def sent(request) -> dict:
    check_parameters(request, ENGINE.capabilities, "ollama")
    return msgspec.to_builtins(translate(request, FROZEN, stream=False).body)


def refused(request) -> EngineError:
    with pytest.raises(EngineError) as caught:
        sent(request)
    assert caught.value.kind is ErrorKind.INVALID_REQUEST
    return caught.value


def test_sampling_parameters_are_options():
    wanted = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "frequency_penalty": 0.1, "presence_penalty": -0.2}
    assert sent(chat(**wanted))["options"] == {"num_ctx": 4096, "num_predict": 8, **wanted}


def test_what_is_not_asked_for_is_not_sent():
    body = sent(chat())
    assert body["options"] == {"num_ctx": 4096, "num_predict": 8}
    assert body.keys() == {"model", "messages", "keep_alive", "stream", "truncate", "options"}


def test_an_answer_is_always_limited():
    assert sent(chat(max_tokens=None))["options"]["num_predict"] == 100
    assert sent(chat(max_completion_tokens=5))["options"]["num_predict"] == 5
    assert sent(chat(max_tokens=100_000))["options"]["num_predict"] == 4096


def test_a_stop_does_not_replace_the_models_own():
    assert sent(chat(stop="END"))["options"]["stop"] == ["END", "<|im_end|>"]
    assert sent(chat(stop=["<|im_end|>", "END"]))["options"]["stop"] == ["<|im_end|>", "END"]
    assert "stop" not in sent(chat(stop=[""]))["options"]


@pytest.mark.parametrize("seed", [-1, 2**31, -(2**63), 2**63 - 1])
def test_every_seed_is_a_fixed_one(seed):
    assert 0 <= sent(chat(seed=seed))["options"]["seed"] < 2**31


def test_developer_messages_become_system_messages_and_parts_one_text():
    parts = [{"type": "text", "text": "Score: "}, {"type": "text", "text": "Ana"}]
    messages = [{"role": "developer", "content": "Rubric"}, {"role": "user", "content": parts}]
    assert sent(chat(messages=messages))["messages"] == [
        {"role": "system", "content": "Rubric"},
        {"role": "user", "content": "Score: Ana"},
    ]


@pytest.mark.parametrize(
    ("wanted", "form"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, "json"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}}, SCHEMA),
        ({"structured_outputs": {"json": SCHEMA}}, SCHEMA),
        ({"structured_outputs": {"json": msgspec.json.encode(SCHEMA).decode()}}, SCHEMA),
        ({"structured_outputs": {"json_object": True}}, "json"),
        ({"structured_outputs": {"choice": ["a", "b"]}}, {"type": "string", "enum": ["a", "b"]}),
    ],
)
def test_structure_is_asked_for_with_format(wanted, form):
    assert sent(chat(**wanted)).get("format") == form


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"n": 2}, "n"),
        ({"logit_bias": {"5": 1.0}}, "logit_bias"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"structured_outputs": {"regex": "[0-9]"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "root ::= x"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"choice": ["a"]}, "logprobs": True}, "logprobs (with structured_outputs.choice)"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"choice": [1]}}, "structured_outputs.choice"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": {}}, "response_format": {"type": "json_object"}}, "structured_outputs"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": "json"}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "name": "Ana"}]}, "messages[0].name"),
    ],
)
def test_what_ollama_cannot_do_is_refused_by_name(wanted, param):
    assert refused(chat(**wanted)).param == param


def test_images_are_refused():
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    assert "image_url" in refused(chat(messages=[{"role": "user", "content": [image]}])).param


def test_logprobs_of_text_completions_are_a_number():
    assert sent(complete(logprobs=5))["top_logprobs"] == 5
    none = sent(complete(logprobs=0))
    assert none["logprobs"] is True and "top_logprobs" not in none
    assert "logprobs" not in sent(complete())


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (complete([1, 2, 3]), "prompt (token ids)"),
        (complete(""), "prompt"),
        (complete(suffix="x"), "suffix"),
        (complete(echo=True), "echo"),
        (complete(best_of=2), "best_of"),
    ],
)
def test_text_completions_ollama_cannot_do_are_refused_by_name(request_, param):
    assert refused(request_).param == param


BEGUN = {"continue_final_message": True, "add_generation_prompt": False}


def begun(last: str, **parameters: object) -> ChatCompletionRequest:
    messages = [Message("user", "Score Ann."), Message(last, "Score:")]
    return ChatCompletionRequest(messages, MODEL, **parameters)  # type: ignore[arg-type]


async def test_an_answer_is_begun_where_the_models_template_leaves_it_open(server):
    server.leaves_open = True
    engine = OllamaEngine(OllamaOptions(), server.url, MODEL)
    await engine.start()
    assert BEGUN.keys() <= engine.capabilities.parameters
    await engine.complete(begun("assistant", **BEGUN))
    assert server.rows[-1].body["messages"][-1] == {"role": "assistant", "content": "Score:"}
    for request, param in (
        (begun("user", **BEGUN), "continue_final_message"),
        (begun("assistant", continue_final_message=True, add_generation_prompt=True), "continue_final_message"),
        (begun("user", add_generation_prompt=False), "add_generation_prompt"),
    ):
        with pytest.raises(EngineError) as caught:
            await engine.complete(request)
        assert caught.value.param == param
    await engine.stop()


async def test_a_begun_answer_is_refused_by_name_where_the_template_closes_it(server, engine):
    with pytest.raises(EngineError) as caught:
        await engine.complete(begun("assistant", **BEGUN))
    assert caught.value.param in BEGUN and caught.value.code == "unsupported_parameter"
    # A server that does not know the question answers it as any other.
    server.answers["/api/chat"] = recording("chat_first")
    engine = OllamaEngine(OllamaOptions(), server.url, MODEL)
    await engine.start()
    assert not BEGUN.keys() & engine.capabilities.parameters
    await engine.stop()
