"""Tools on the embedded engine, through OpenAI's own client: calls, streams, batches, and hostile tools."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import openai
import psutil
import pydantic
import pytest

from server_process import ServerProcess

MODEL = "smollm2-135m-instruct"
WEATHER: dict[str, Any] = {
    "type": "object", "required": ["city", "unit"],
    "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"$ref": "#/$defs/Unit"}},
    "$defs": {"Unit": {"enum": ["C", "F"]}},
}  # fmt: skip
ZONE: dict[str, Any] = {"type": "object", "required": ["zone"], "properties": {"zone": {"enum": ["UTC", "CET"]}}}


def tool(name: str, parameters: Any = None, **others: Any) -> dict[str, Any]:
    function = {"name": name, "parameters": parameters, **others}
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


TOOLS = [
    tool("get_weather", WEATHER, description="The weather now."),
    tool("get_time", ZONE, strict=True),
    tool("ping"),
]
SCHEMAS = {"get_weather": WEATHER, "get_time": ZONE, "ping": {"type": "object", "maxProperties": 0}}
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "What is the weather in Ulm?"}],
                       "max_tokens": 120}  # fmt: skip


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.fixture(scope="module")
def tool_server(pulled_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ["--engine", "openvino", "--model", pulled_model, "-O", "kv_cache_gb=0.3"]
    with ServerProcess(tmp_path_factory.mktemp("data"), *options) as running:
        yield running


@pytest.fixture(scope="module")
def openai_client(tool_server: ServerProcess) -> openai.OpenAI:
    return tool_server.client(max_retries=0)


def check(call: Any) -> None:
    assert call.type == "function" and call.id.startswith("call_")
    arguments = json.loads(call.function.arguments)
    jsonschema.validate(arguments, SCHEMAS[call.function.name])
    assert arguments.keys() <= SCHEMAS[call.function.name].get("properties", {}).keys()


@pytest.mark.parametrize("choice", ["required", named("get_weather"), named("get_time"), named("ping")])
def test_a_forced_call_always_parses(openai_client: openai.OpenAI, choice: Any) -> None:
    answer = openai_client.chat.completions.create(
        **ASK, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, temperature=1.5, seed=7, n=3
    )
    assert len(answer.choices) == 3
    for found in answer.choices:
        assert found.finish_reason == "tool_calls" and found.message.content is None and found.message.tool_calls
        (call,) = found.message.tool_calls
        check(call)
        assert choice == "required" or call.function.name == choice["function"]["name"]


def test_several_calls_in_one_answer_have_ids_of_their_own(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        **ASK,
        tools=[tool("ping")],
        tool_choice="required",
        parallel_tool_calls=True,
        logit_bias={"2": -100, "0": -100},
        temperature=0,
    )
    calls = answer.choices[0].message.tool_calls
    assert calls and len(calls) > 1 and len({call.id for call in calls}) == len(calls)


def test_a_streamed_call_brings_its_name_first_and_adds_up(openai_client: openai.OpenAI) -> None:
    asked = ASK | {"tools": TOOLS, "tool_choice": named("get_weather"), "temperature": 0}
    whole = openai_client.chat.completions.create(**asked).choices[0].message.tool_calls
    with openai_client.chat.completions.stream(**asked) as stream:
        chunks = [event.chunk for event in stream if event.type == "chunk"]
        final = stream.get_final_completion()
    assert whole and final.choices[0].finish_reason == "tool_calls"
    calls = final.choices[0].message.tool_calls
    assert calls and calls[0].function.arguments == whole[0].function.arguments
    deltas = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert deltas[0].id and deltas[0].function.name == "get_weather" and len(deltas) > 2
    assert all(delta.id is None and delta.function.name is None for delta in deltas[1:])


def told_before() -> list[dict[str, Any]]:
    """How others have asked: the small model does as it has seen."""
    messages: list[dict[str, Any]] = []
    for city in ("Rome", "Oslo", "Bonn"):
        arguments = json.dumps({"city": city, "unit": "C"})
        call = {"id": city, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
        messages += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": city, "content": "dry"},
            {"role": "assistant", "content": f"It is dry in {city}."},
        ]
    return messages


def test_a_model_calls_of_its_own_choice_and_never_where_none_is_to_be_called(openai_client: openai.OpenAI) -> None:
    asked = ASK | {"messages": [*told_before(), *ASK["messages"]], "temperature": 0, "max_tokens": 60}
    (found,) = openai_client.chat.completions.create(**asked, tools=TOOLS[:1], parallel_tool_calls=False).choices
    assert found.finish_reason == "tool_calls" and found.message.tool_calls
    check(found.message.tool_calls[0])
    assert "Ulm" in found.message.tool_calls[0].function.arguments
    for parameters in ({"tools": TOOLS, "tool_choice": "none"}, {}):
        (found,) = openai_client.chat.completions.create(**asked | {"max_tokens": 8}, **parameters).choices
        assert found.message.tool_calls is None and "<tool_call>" not in (found.message.content or "")


def test_a_result_may_follow(openai_client: openai.OpenAI) -> None:
    first = openai_client.chat.completions.create(**ASK, tools=TOOLS, tool_choice=named("get_time")).choices[0].message
    messages = [*ASK["messages"], first, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "12:30"}]
    answer = openai_client.chat.completions.create(**ASK | {"messages": messages, "max_tokens": 12}, tools=TOOLS)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def test_the_deprecated_functions_answer_with_a_function_call(openai_client: openai.OpenAI) -> None:
    asked = ASK | {"functions": [TOOLS[1]["function"]], "function_call": {"name": "get_time"}}
    (found,) = openai_client.chat.completions.create(**asked).choices
    assert found.finish_reason == "function_call" and found.message.tool_calls is None
    assert found.message.function_call and found.message.function_call.name == "get_time"
    jsonschema.validate(json.loads(found.message.function_call.arguments), ZONE)
    pieces = [
        chunk.choices[0].delta.function_call for chunk in openai_client.chat.completions.create(**asked, stream=True)
    ]
    streamed = [piece for piece in pieces if piece is not None]
    assert streamed[0].name == "get_time"
    jsonschema.validate(json.loads("".join(piece.arguments or "" for piece in streamed)), ZONE)


class Reading(pydantic.BaseModel):
    unit: Literal["C", "F"]
    degrees: int = pydantic.Field(ge=-60, le=60, description="Rounded.")


class Report(pydantic.BaseModel):
    """A report of the weather."""

    readings: list[Reading] = pydantic.Field(max_length=2)
    note: str | None = pydantic.Field(default=None, max_length=8)
    kinds: dict[str, bool] = pydantic.Field(default={}, max_length=1)


def test_parse_takes_pydantic_models_as_formats_and_as_tools(openai_client: openai.OpenAI) -> None:
    class Small(pydantic.BaseModel):
        readings: list[Reading] = pydantic.Field(max_length=2)

    parsed = openai_client.chat.completions.parse(**ASK, response_format=Small)
    assert isinstance(parsed.choices[0].message.parsed, Small)
    called = openai_client.chat.completions.parse(
        **ASK, tools=[openai.pydantic_function_tool(Reading)], tool_choice=named("Reading")
    )
    calls = called.choices[0].message.tool_calls
    assert calls and isinstance(calls[0].function.parsed_arguments, Reading)


def test_pydantics_own_schema_as_the_one_tool_that_must_be_called(openai_client: openai.OpenAI) -> None:
    """As instructor (named) and pydantic-ai (required, one tool for the output) ask by default."""
    tools = [tool("Report", Report.model_json_schema(), description=Report.__doc__)]
    for choice in (named("Report"), "required"):
        answer = openai_client.chat.completions.create(
            **ASK | {"max_tokens": 400}, tools=tools, tool_choice=choice, parallel_tool_calls=False, temperature=0
        )
        assert answer.choices[0].message.tool_calls
        Report.model_validate_json(answer.choices[0].message.tool_calls[0].function.arguments)


def circle() -> dict[str, Any]:
    return {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


TREE = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}}}
HOSTILE: dict[str, tuple[dict[str, Any], str | None]] = {
    # No object has an end that must hold another of its kind.
    "circle": ({"tools": [tool("a", circle())], "tool_choice": "required"}, "tools"),
    "remote": ({"tools": [tool("a", {"$ref": "http://a/b"})]}, "tools[0].function.parameters"),
    "strict": ({"tools": [tool("a", {"type": "object", "properties": {"x": {"uniqueItems": True}}}, strict=True)]},
               "tools[0].function.parameters"),
    "not-an-object": ({"tools": [tool("a", {"type": "array"})]}, "tools[0].function.parameters"),
    "deep": ({"tools": [tool("a", deep(150))]}, None),
    "many": ({"tools": [tool(f"t{i}", WEATHER) for i in range(1000)]}, None),
    "a-name": ({"tools": [tool('a"b')]}, "tools[0].function.name"),
    "twice": ({"tools": [tool("a"), tool("a")]}, "tools[1].function.name"),
    "remainders": ({"tools": [tool("a", {"properties": {"x": {"type": "integer", "multipleOf": 99991}}})]},
                   "tools[0].function.parameters"),
}  # fmt: skip


def test_batches_of_rows_with_tools_answer_them_and_hostile_ones_are_errors_of_their_own(
    openai_client: openai.OpenAI, tool_server: ServerProcess, tmp_path: Path
) -> None:
    workers = [each.pid for each in psutil.Process(tool_server.pid).children()]
    rows: dict[str, dict[str, Any]] = {
        f"row-{i}": {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "seed": i}
        for i in range(6)
    }
    rows["tree"] = {"tools": [tool("grow", TREE)], "tool_choice": "required", "parallel_tool_calls": False}
    rows |= {name: parameters for name, (parameters, _) in HOSTILE.items()}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": ASK | {"max_tokens": 100} | body}
        for name, body in rows.items()
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = openai_client.files.create(file=source, purpose="batch")
    batch = openai_client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    end = time.monotonic() + 240
    while batch.status not in ("completed", "failed"):
        assert time.monotonic() < end, batch
        time.sleep(0.2)
        batch = openai_client.batches.retrieve(batch.id)
    assert batch.status == "completed" and batch.output_file_id and batch.error_file_id
    answers = [json.loads(line) for line in openai_client.files.content(batch.output_file_id).text.splitlines()]
    assert {answer["custom_id"] for answer in answers} == rows.keys() - HOSTILE.keys()
    for answer in answers:
        (choice,) = answer["response"]["body"]["choices"]
        assert choice["finish_reason"] in ("tool_calls", "length") and choice["message"]["tool_calls"]
    errors = [json.loads(line) for line in openai_client.files.content(batch.error_file_id).text.splitlines()]
    assert {error["custom_id"]: error["response"]["status_code"] for error in errors} == dict.fromkeys(HOSTILE, 400)
    for error in errors:
        expected = HOSTILE[error["custom_id"]][1]
        assert expected is None or error["response"]["body"]["error"]["param"] == expected, error
    assert [each.pid for each in psutil.Process(tool_server.pid).children()] == workers


def test_a_reader_who_leaves_in_the_middle_of_a_call_stops_it(openai_client: openai.OpenAI) -> None:
    endless = tool("write", {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})
    asked = ASK | {"max_tokens": 4000, "tools": [endless], "tool_choice": named("write"), "logit_bias": {"18": -100}}
    stream = openai_client.chat.completions.create(**asked, stream=True)
    for chunk in stream:
        if chunk.choices[0].delta.tool_calls:
            break
    stream.close()
    # The next is answered while the first would still be writing.
    assert openai_client.chat.completions.create(**ASK, tools=TOOLS, tool_choice=named("ping")).choices


def test_responses_call_and_are_called_back_the_same(tool_server: ServerProcess) -> None:
    client = openai.OpenAI(base_url=tool_server.base_url, api_key="unused", _strict_response_validation=True)
    asked: dict[str, Any] = {
        "model": MODEL, "tools": [{"type": "function", **each["function"]} for each in TOOLS], "temperature": 0,
        "max_output_tokens": 120, "parallel_tool_calls": False,
    }  # fmt: skip
    question = {"role": "user", "content": "What is the weather in Ulm?"}
    choice = {"type": "function", "name": "get_weather"}
    whole = client.responses.create(**asked, input=[question], tool_choice=choice)
    (call,) = whole.output
    assert call.type == "function_call"
    jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
    with client.responses.stream(**asked, input=[question], tool_choice=choice) as stream:
        pieces = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        (streamed,) = stream.get_final_response().output
    assert streamed.type == "function_call" and streamed.arguments == "".join(pieces) == call.arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny, 20 C."}
    forms = call.model_dump(), {"type": "item_reference", "id": call.id}
    asked |= {"max_output_tokens": 8, "tool_choice": "none"}
    answers = [client.responses.create(**asked, input=[question, form, result]) for form in forms]
    assert answers[0].output_text == answers[1].output_text != ""
    assert answers[0].usage is not None and answers[1].usage is not None
    assert answers[0].usage.input_tokens == answers[1].usage.input_tokens
