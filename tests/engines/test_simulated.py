from __future__ import annotations

import asyncio
import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.common_prefix import common_prefix
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import Completion
from gristmill.engines.simulated import SimulatedEngine, SimulatedOptions, _PromptCache
from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.completions import CompletionRequest

prompts = st.lists(st.text("ab", max_size=40), max_size=25)


def shared(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def chat(text: str, **parameters: object) -> ChatCompletionRequest:
    asked = {"messages": [{"role": "user", "content": text}], "model": "simulated"}
    return msgspec.convert(asked | parameters, ChatCompletionRequest)


def complete(*requests: ChatCompletionRequest | CompletionRequest, **options: object) -> list[Completion]:
    async def main() -> list[Completion]:
        engine = SimulatedEngine(SimulatedOptions(**options))  # type: ignore[arg-type]
        await engine.start()
        try:
            return [await engine.complete(request) for request in requests]
        finally:
            await engine.stop()

    return asyncio.run(main())


@given(st.text(max_size=50), st.integers(1, 4), st.integers(1, 20))
def test_the_same_request_gets_the_same_answer_in_another_process_too(text: str, n: int, limit: int) -> None:
    first, second = complete(chat(text, n=n, max_tokens=limit)), complete(chat(text, n=n, max_tokens=limit))
    assert first[0].choices == second[0].choices
    assert len(first[0].choices) == n


def test_answers_are_fixed_for_good() -> None:
    # Receipts and recorded files rely on it.
    (completion,) = complete(chat("hello"))
    assert completion.choices[0].text == complete(chat("hello"))[0].choices[0].text
    assert completion.choices[0].text.split()[0].isdigit()


def test_different_prompts_and_different_choices_get_different_answers() -> None:
    answers = {choice.text for row in range(20) for choice in complete(chat(f"row {row}", n=3))[0].choices}
    assert len(answers) > 50


@pytest.mark.parametrize("limit", [1, 3, 8, 100])
def test_the_token_limit_is_kept_and_said(limit: int) -> None:
    (completion,) = complete(chat("hello", max_tokens=limit))
    words = completion.choices[0].text.split()
    assert len(words) == min(limit, 8) == completion.completion_tokens
    assert completion.choices[0].finish_reason == ("length" if limit < 8 else "stop")


def test_text_ends_before_a_stop_sequence() -> None:
    text = complete(chat("hello"))[0].choices[0].text
    stop = text.split()[2]
    assert complete(chat("hello", stop=[stop, "never"]))[0].choices[0].text == text[: text.index(stop)]


@given(prompts)
def test_the_cache_never_reuses_more_than_the_longest_prefix_it_has_seen(texts: list[str]) -> None:
    cache = _PromptCache(4)
    for index, text in enumerate(texts):
        longest = max((shared(text, seen) for seen in texts[:index]), default=0)
        assert 0 <= cache.reuse(text) <= longest


@given(prompts)
def test_a_cache_with_room_for_all_reuses_exactly_the_longest_prefix(texts: list[str]) -> None:
    # Long ends of their own: a prompt that shares half of an older one would take its place.
    texts = [text + f"{index:03}" * 80 for index, text in enumerate(texts)]
    cache = _PromptCache(1_000)
    for index, text in enumerate(texts):
        assert cache.reuse(text) == max((shared(text, seen) for seen in texts[:index]), default=0)


def test_a_shared_rubric_is_computed_once() -> None:
    rubric = "How well does the candidate know the trade? " * 200
    completions = complete(*(chat(f"{rubric} Candidate {row}.") for row in range(50)))
    assert completions[0].cached_tokens == 0
    for completion in completions[1:]:
        assert completion.cached_tokens is not None
        assert completion.cached_tokens / completion.prompt_tokens > 0.97
        assert completion.cached_tokens < completion.prompt_tokens


def test_the_cache_can_be_switched_off() -> None:
    assert [each.cached_tokens for each in complete(chat("a" * 100), chat("a" * 100), cached_prompts=0)] == [0, 0]


@given(st.text("ab", max_size=60), st.text("ab", max_size=60))
def test_the_shared_prefix_is_the_common_prefix(one: str, other: str) -> None:
    assert common_prefix(one, other) == shared(one, other)


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_a_failure_is_of_the_kind_that_was_asked_for_and_hits_only_its_rows(kind: ErrorKind) -> None:
    options = {"fail_on": "hopeless", "failure_kind": kind}
    with pytest.raises(EngineError) as raised:
        complete(chat("a hopeless case"), **options)
    assert raised.value.kind is kind
    assert complete(chat("a good case"), **options)


def test_failures_by_rate_come_about_as_often_as_asked_for() -> None:
    async def main() -> int:
        engine = SimulatedEngine(SimulatedOptions(failure_rate=0.3))
        failed = 0
        for row in range(1_000):
            try:
                await engine.complete(chat(str(row)))
            except EngineError:
                failed += 1
        return failed

    assert 200 < asyncio.run(main()) < 400


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"logit_bias": {"1": 5.0}}, "logit_bias"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(parameters: dict[str, object], param: str) -> None:
    with pytest.raises(EngineError) as raised:
        complete(chat("x", **parameters))
    assert (raised.value.kind, raised.value.param) == (ErrorKind.INVALID_REQUEST, param)


def test_a_model_it_has_not_and_a_prompt_too_long_are_refused() -> None:
    with pytest.raises(EngineError, match="does not exist"):
        complete(CompletionRequest(prompt="x", model="other"))
    with pytest.raises(EngineError) as raised:
        complete(chat("word " * 100), context_length=50)
    assert raised.value.code == "context_length_exceeded"


def test_the_journal_has_one_line_for_each_answer_whatever_the_prompt(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    complete(chat("one\ntwo"), chat("\u2028three"), chat("four"), journal=str(journal))
    complete(chat("five"), journal=str(journal))
    with pytest.raises(EngineError):
        complete(chat("bad"), journal=str(journal), fail_on="bad")
    assert journal.read_bytes().decode().split("\n") == [
        "user: one two",
        "user: \u2028three",
        "user: four",
        "user: five",
        "",
    ]


def test_options_are_read_from_text_or_refused_by_name() -> None:
    options = SimulatedOptions.parse({"slots": "4", "latency": "0.5", "failure_kind": "timeout"})
    assert (options.slots, options.latency, options.failure_kind) == (4, 0.5, ErrorKind.TIMEOUT)
    with pytest.raises(UserError, match="has no option 'speed'"):
        SimulatedOptions.parse({"speed": "1"})
    with pytest.raises(UserError, match="not valid"):
        SimulatedOptions.parse({"slots": "many"})


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"$ref": "#/$defs/City"}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city"], "$defs": {"City": {"anyOf": [{"enum": ["Ulm", "Bonn"]}, {"type": "null"}]}}}}}  # fmt: skip
TREE = {"type": "function", "function": {"name": "tree", "parameters": {
    "type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}}}  # fmt: skip


def test_a_tool_is_called_until_its_result_is_there_and_the_same_request_calls_the_same() -> None:
    asked = {"tools": [WEATHER, TREE], "tool_choice": {"type": "function", "function": {"name": "weather"}}}
    one, same, other = complete(*(chat(text, **asked) for text in ("x", "x", "y")))
    assert one.choices == same.choices != other.choices
    (call,) = one.choices[0].tool_calls
    assert (one.choices[0].finish_reason, one.choices[0].text) == ("tool_calls", "")
    assert call.function.name == "weather" and json.loads(call.function.arguments)["city"] in ("Ulm", "Bonn")
    (auto, quiet) = complete(chat("x", tools=[TREE]), chat("x", tools=[TREE], tool_choice="none"))
    assert json.loads(auto.choices[0].tool_calls[0].function.arguments).keys() == {"children"}
    assert quiet.choices[0].tool_calls == () and quiet.choices[0].text
    history = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [msgspec.to_builtins(call)]},
               {"role": "tool", "tool_call_id": call.id, "content": "dry"}]  # fmt: skip
    (answered,) = complete(chat("x", tools=[WEATHER], messages=history))
    assert answered.choices[0].finish_reason == "stop" and answered.choices[0].text


ODD: tuple[dict[str, Any], ...] = (
    {"properties": []}, {"properties": {"a": 5}}, {"$ref": 5}, {"$ref": "#/a/b"}, {"allOf": 5}, {"anyOf": []},
    {"required": 5, "properties": {"a": True}},
    {"properties": {"a": {"type": "integer", "minimum": "x", "maximum": -3}}},
    {"properties": {"a": {"type": "array", "minItems": 999_999_999}}}, {"properties": {"a": {"enum": 5, "type": []}}},
    {"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, {"anyOf": [{"$ref": "#"}]},
)  # fmt: skip


@pytest.mark.parametrize("parameters", ODD, ids=str)
def test_a_schema_that_makes_little_sense_is_answered_nevertheless(parameters: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "odd", "parameters": parameters}}
    (found,) = complete(chat("x", tools=[tool], tool_choice="required"))
    assert found.choices[0].tool_calls[0].function.name == "odd"
    json.loads(found.choices[0].tool_calls[0].function.arguments)
