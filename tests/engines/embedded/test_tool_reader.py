"""Calls of tools in every family's own words: by the grammar's rules, and read back whole, however the text is cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines.embedded.generation import CallingStream
from gristmill.engines.embedded.tools import tool_format
from gristmill.engines.embedded.tools.tool_format import ToolFormat, format_of
from gristmill.engines.embedded.tools.tool_grammar import text_grammar, tool_grammar
from gristmill.engines.embedded.tools.tool_reader import CallReader
from gristmill.engines.errors import EngineError
from gristmill.engines.tools.offer import Offer, offer_of
from gristmill.extras import require
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.tools import FunctionCall

FORMATS = [tool_format.HERMES, tool_format.LLAMA, tool_format.MISTRAL, tool_format.MISTRAL_SPACED,
           tool_format.MISTRAL_ARGS]  # fmt: skip
SPECIAL = {"[TOOL_CALLS]": 257, "[ARGS]": 258}
Calls = list[tuple[str, dict[str, Any]]]


def reader(form: ToolFormat) -> CallReader:
    numbers = itertools.count()
    return CallReader(form, lambda: f"call_{next(numbers)}")


def written(form: ToolFormat, calls: Calls) -> str:
    if not calls:
        return ""
    each = [form.before_name + name + form.after_name + json.dumps(arguments, ensure_ascii=False) + form.after_arguments
            for name, arguments in calls]  # fmt: skip
    return form.opening + (form.between or "").join(each) + form.closing


def read(form: ToolFormat, pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """What is said and called, put together from the deltas as a client does; the reader's own sum must be the same."""
    reading = reader(form)
    spoken = [reading.push(piece) for piece in pieces]
    spoken.append(reading.finish())
    calls: list[list[str]] = []
    for delta in (delta for each in spoken for delta in each.calls):
        assert delta.function is not None
        if delta.index == len(calls):
            assert delta.id and delta.type == "function" and delta.function.name
            calls.append([delta.function.name, ""])
        else:
            assert delta.index == len(calls) - 1 and delta.id is None and delta.function.name is None
        calls[-1][1] += delta.function.arguments or ""
    assert [(call.function.name, call.function.arguments) for call in reading.calls] == [tuple(each) for each in calls]
    return "".join(each.text for each in spoken), [(name, arguments) for name, arguments in calls]


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[a:b] for a, b in itertools.pairwise([0, *ends, len(text)])]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip
some_calls = st.lists(
    st.tuples(st.from_regex(r"[A-Za-z0-9_-]{1,9}", fullmatch=True), st.dictionaries(st.text(), values, max_size=3)),
    max_size=3,
)
#: With beginnings of every trigger.
texts = st.text(st.sampled_from('<tool_cal>[TOLCS]{" \nxé🙂'), max_size=30)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@settings(max_examples=80, deadline=None)
@given(said=texts, calls=some_calls, places=st.lists(st.integers(0, 400), max_size=8))
def test_calls_are_read_as_they_were_written_however_the_text_comes(
    form: ToolFormat, said: str, calls: Calls, places: list[int]
) -> None:
    if form.between is None:
        calls = calls[:1]
    said = "" if form.alone and calls else said
    if form.trigger in said + ("" if calls else "."):
        return
    text, found = read(form, cut(said + written(form, calls), places))
    assert found == [(name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in calls]
    assert text == (said.rstrip() if calls else said)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_an_answer_that_is_cut_off_in_a_call_has_what_there_is_of_it(form: ToolFormat) -> None:
    whole = written(form, [("weather", {"city": "Ulm"})])
    for length in range(1, len(whole)):
        text, calls = read(form, [whole[:length]])
        assert not text or form.trigger.startswith(text)
        assert all(name == "weather" and '{"city": "Ulm"}'.startswith(arguments) for name, arguments in calls)


def test_text_is_held_back_only_while_a_call_may_begin() -> None:
    reading = reader(tool_format.HERMES)
    pieces = ["It is <", "b>warm", "  ", "<tool", "_bar", " end\n"]
    assert [reading.push(piece).text for piece in pieces] == ["It is", " <b>warm", "", "", "  <tool_bar", " end"]
    assert reading.finish().text == "\n"


def test_stop_strings_end_the_text_and_cut_no_call() -> None:
    stream = CallingStream(["Ulm"], reader(tool_format.HERMES))
    for piece in ("Well. ", written(tool_format.HERMES, [("weather", {"city": "Ulm"})])):
        stream.push(piece.encode())
    stream.finish()
    assert not stream.stopped and stream.text == "Well."
    assert [call.function for call in stream.calls] == [FunctionCall("weather", '{"city": "Ulm"}')]
    other = CallingStream(["Ulm"], reader(tool_format.HERMES))
    other.push(b"In Ulm it rains. <tool_call>")
    assert other.stopped and other.text == "In " and other.calls == () and other.take_calls() == ()


# Grammars, byte by byte: what they let through is what the reader reads.


class _Bytes:
    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256, *SPECIAL.values())
    tokens = (*(bytes([value]) for value in range(256)), b"<eos>", *(mark.encode() for mark in SPECIAL))

    def __call__(self, text: str) -> list[int]:
        if isinstance(text, bytes):
            raise TypeError
        return list(text.encode())


def compiled(form: ToolFormat, offer: Offer, content: str | None = None) -> Any:
    llguidance = require("llguidance")
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()), eos_token=[256])
    marks = {mark: SPECIAL[mark] for mark in form.marks if mark in SPECIAL}
    matcher = llguidance.LLMatcher(tokenizer, tool_grammar(offer, offer.callable, form, marks, content), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def lets_through(matcher: Any, text: str) -> bool:
    """As a whole answer."""
    parts = [text]
    for mark in SPECIAL:
        parts = [piece for part in parts for piece in _split(part, mark)]
    tokens = [token for part in parts for token in ([SPECIAL[part]] if part in SPECIAL else part.encode())]
    return all(matcher.consume_token(token) for token in tokens) and matcher.is_accepting()


def _split(text: str, mark: str) -> list[str]:
    first, *more = text.split(mark)
    return [first, *(piece for each in more for piece in (mark, each))]


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


CITY = tool("weather", type="object", properties={"city": {"$ref": "#/$defs/City"}}, required=["city"],
            **{"$defs": {"City": {"enum": ["Ulm", "Köln"]}}})  # fmt: skip
ZONE = tool("time", type="object", properties={"zone": {"$ref": "#/$defs/City"}}, required=["zone"],
            **{"$defs": {"City": {"const": "UTC"}}})  # fmt: skip


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": schema}
    return schema


def offer(**parameters: Any) -> Offer:
    body = {"model": "m", "messages": [{"role": "user"}], "tools": [CITY, ZONE], **parameters}
    found = offer_of(msgspec.convert(body, ChatCompletionRequest))
    assert found is not None
    return found


ULM, UTC = ("weather", {"city": "Ulm"}), ("time", {"zone": "UTC"})


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_grammar_lets_through_calls_of_the_tools_with_arguments_by_their_schemas(form: ToolFormat) -> None:
    right = [[ULM], [UTC]] + ([] if form.between is None else [[ULM, UTC], [UTC, ULM, ULM]])
    wrong: list[Calls] = [
        [("weather", {"city": "UTC"})], [("time", {"zone": "Ulm"})], [("other", {})], [("weather", {})],
        [("time", {"zone": "UTC", "more": 1})],
    ]  # fmt: skip
    for choice in ("auto", "required"):
        for calls in right:
            asked = offer(tool_choice=choice, parallel_tool_calls=True)
            assert lets_through(compiled(form, asked), written(form, calls)), (choice, calls)
        for calls in wrong:
            assert not lets_through(compiled(form, offer(tool_choice=choice)), written(form, calls)), (choice, calls)
    assert lets_through(compiled(form, offer()), "Ulm? 3 < 4 <tool") and lets_through(compiled(form, offer()), "")
    assert not lets_through(compiled(form, offer(tool_choice="required")), "Ulm?")
    named = offer(tool_choice={"type": "function", "function": {"name": "time"}})
    assert lets_through(compiled(form, named), written(form, [UTC]))
    assert not lets_through(compiled(form, named), written(form, [ULM]))
    assert not lets_through(compiled(form, named), written(form, [UTC, UTC]))
    if form.between is not None:
        assert lets_through(compiled(form, offer()), written(form, [UTC, UTC]))
        for one in (offer(tool_choice="required"), offer(parallel_tool_calls=False)):
            assert not lets_through(compiled(form, one), written(form, [UTC, UTC]))
    if not form.alone:
        assert lets_through(compiled(form, offer()), "I'll look.\n" + written(form, [ULM]))
        assert lets_through(compiled(form, offer(), '"yes"'), "yes")
        assert not lets_through(compiled(form, offer(), '"yes"'), "no")


def test_an_answer_without_calls_may_be_any_text_but_theirs() -> None:
    llguidance = require("llguidance")
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()), eos_token=[256])
    for form in (tool_format.HERMES, tool_format.MISTRAL):
        marks = {mark: SPECIAL[mark] for mark in form.marks if mark in SPECIAL}
        for text, fine in (("Ulm.\nIt < é", True), ("", True), ("<tool_bar>", True), (f"Ulm {form.trigger}", False)):
            matcher = llguidance.LLMatcher(tokenizer, text_grammar(form, marks), log_level=0)
            assert lets_through(matcher, text) is fine, (form.name, text)


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": None, "function_call": {"name": "weather"}}, "function_call"),
        ({"tools": [CITY, ZONE, CITY]}, "tools[2].function.name"),
        ({"functions": [CITY["function"]]}, "functions"),
        ({"tools": [CITY, tool("deep", **nested(101))]}, "tools[1].function.parameters"),
        ({"tools": None, "functions": [CITY["function"]], "function_call": {"name": "x"}}, "function_call"),
    ],
)
def test_an_offer_that_makes_no_sense_is_refused_by_name(parameters: dict[str, Any], param: str) -> None:
    with pytest.raises(EngineError) as caught:
        offer(**parameters)
    assert caught.value.param == param and caught.value.status == 400


def test_a_schema_may_have_a_hundred_levels() -> None:
    assert offer(tools=[tool("deep", **nested(100))]).tools[0].name == "deep"


def test_a_tool_whose_parameters_are_no_object_is_refused() -> None:
    strange = offer(tools=[CITY, tool("list", type="array")])
    with pytest.raises(EngineError) as caught:
        tool_grammar(strange, strange.callable, tool_format.HERMES, {})
    assert caught.value.param == "tools[1].function.parameters"


# The templates themselves are the models' own; these are the passages that tell.
QWEN = """{%- if tools %}{{- "# Tools" }}
<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args>}{%- endif %}
{{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}"""
LLAMA = """{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- '{"name": "' + tool_call.name + '", ' }}{{- '"parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}" }}"""
MISTRAL = """{%- if tools is not none %}[AVAILABLE_TOOLS]{%- endif %}{{- "[TOOL_CALLS][" }}"""


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (QWEN, tool_format.HERMES),
        (LLAMA, tool_format.LLAMA),
        (MISTRAL, tool_format.MISTRAL),
        (MISTRAL.replace("[TOOL_CALLS][", "[TOOL_CALLS] ["), tool_format.MISTRAL_SPACED),
        (MISTRAL.replace("[TOOL_CALLS][", "[TOOL_CALLS]name[ARGS]"), tool_format.MISTRAL_ARGS),
        (MISTRAL.replace("[TOOL_CALLS][", "[TOOL_CALLS]name[CALL_ID]1[ARGS]"), None),
        (QWEN + "<function=name>", None),
        (QWEN.replace("tools", "xml"), None),
        ("{{ messages[0].content }}", None),
        ("{% for tool in tools %}{{ tool }}{% endfor %}", None),
    ],
)
def test_a_templates_own_text_tells_how_its_model_writes_calls(template: str, form: ToolFormat | None) -> None:
    assert format_of(template) == form
