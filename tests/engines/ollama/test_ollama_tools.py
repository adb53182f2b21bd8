"""Tools, thoughts and images on Ollama: what is asked for, and what is made of the answers.

No recording has tools; the answers are recordings with the messages of Ollama's documentation (docs/api.md, "Chat
request (Streaming with tools)") and the names of its api/types.go.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest
import pytest_asyncio
from ollama_replay import MODEL, Recording, recording
from ollama_requests import asking_for, chat

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.ollama.engine import OllamaEngine, OllamaOptions
from gristmill.engines.ollama.forced_calls import forced_format
from gristmill.engines.ollama.translation import Frozen, translate
from gristmill.engines.ollama.wire import Options
from gristmill.engines.protocol import ChoiceDelta
from gristmill.engines.tools.offer import offer_of

CITY = {"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}, "required": ["city"],
        "$defs": {"City": {"enum": ["Tokyo", "Ulm"]}}}  # fmt: skip
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Now", "parameters": CITY}}
PING = {"type": "function", "function": {"name": "ping"}}
CALL = {"function": {"name": "get_weather", "arguments": {"city": "Tokyo"}}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
#: One pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def frozen(*abilities: str) -> Frozen:
    return Frozen("m", Options(num_ctx=4096), 4096, abilities=frozenset(abilities) if abilities else None)


def body(*abilities: str, **parameters: Any) -> Any:
    return translate(chat(**parameters), frozen(*abilities), stream=False).body


def refused(*abilities: str, **parameters: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        body(*abilities, **parameters)
    assert caught.value.kind is ErrorKind.INVALID_REQUEST and caught.value.status == 400
    return caught.value


def answer(**message: Any) -> Recording:
    return recording("chat_first").but(message={"role": "assistant", "content": ""} | message, done_reason="stop")


@pytest_asyncio.fixture
async def able(server):
    """An engine whose model can call tools, think and see, as /api/show says."""
    server.answers["/api/show"] = recording("show").but(capabilities=["completion", "tools", "vision", "thinking"])
    engine = OllamaEngine(OllamaOptions(), server.url, MODEL)
    await engine.start()
    yield engine
    await engine.stop()


@pytest.mark.asyncio
async def test_what_a_model_calls_of_itself_is_read_from_its_message(server, able):
    server.play(answer(content="I look.", tool_calls=[CALL, CALL | {"id": "call_1"}]))
    (choice,) = (await able.complete(chat(tools=[WEATHER, PING]))).choices
    assert (choice.text, choice.finish_reason) == ("I look.", "tool_calls")
    assert [call.function.arguments for call in choice.tool_calls] == ['{"city": "Tokyo"}'] * 2
    assert len({call.id for call in choice.tool_calls}) == 2
    without = {"name": "ping", "parameters": {"type": "object", "properties": {}}}
    assert server.rows[-1].body["tools"] == [WEATHER, {"type": "function", "function": without}]
    server.play(answer(tool_calls=[CALL, CALL]))
    (choice,) = (await able.complete(chat(tools=[WEATHER], parallel_tool_calls=False))).choices
    assert len(choice.tool_calls) == 1


@pytest.mark.asyncio
async def test_a_stream_brings_thoughts_calls_and_log_probabilities_as_they_come(server, able):
    first, *_, last = recording("chat_stream").body.splitlines(keepends=True)
    said = ({"thinking": "Hm"}, {"thinking": "."}, {"content": "Well"}, {"tool_calls": [CALL]})
    lines = [json.loads(first) | {"message": {"role": "assistant", "content": ""} | each} for each in said]
    logprobs = recording("chat_logprobs").json["logprobs"][:1]
    lines[2]["logprobs"] = logprobs
    end = json.dumps(json.loads(last) | {"done_reason": "stop"}).encode() + b"\n"
    server.play(recording("chat_stream")._replace(body=b"".join(json.dumps(x).encode() + b"\n" for x in lines) + end))
    deltas: list[ChoiceDelta] = []
    completion = await able.complete(chat(tools=[WEATHER], logprobs=True), deltas.append)
    (choice,) = completion.choices
    assert (choice.reasoning, choice.text, choice.finish_reason) == ("Hm.", "Well", "tool_calls")
    assert [delta.reasoning for delta in deltas if delta.reasoning] == ["Hm", "."]
    assert [token for delta in deltas for token in delta.logprobs or ()] == choice.logprobs and choice.logprobs
    named, filled = (delta.tool_calls[0] for delta in deltas if delta.tool_calls)
    assert (named.id, named.function.name, named.function.arguments) == (choice.tool_calls[0].id, "get_weather", "")
    assert (filled.id, filled.function.arguments) == (None, '{"city": "Tokyo"}')


@pytest.mark.asyncio
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_forced_call_is_asked_for_by_a_grammar_and_read_from_the_text(server, engine, streamed):
    one = {"name": "get_weather", "arguments": {"city": "Ulm"}}
    for choice, text, count in ((NAMED, json.dumps(one), 1), ("required", json.dumps([one, one]), 2)):
        stream = recording("chat_stream").body.splitlines(keepends=True)
        ended = json.loads(stream[-1]) | {"done_reason": "stop"}
        said = json.loads(stream[0]) | {"message": {"role": "assistant", "content": text}}
        lines = json.dumps(said).encode() + b"\n" + json.dumps(ended).encode() + b"\n"
        server.play(recording("chat_stream")._replace(body=lines) if streamed else answer(content=text))
        deltas: list[ChoiceDelta] = []
        asked = chat(tools=[WEATHER, PING], tool_choice=choice, parallel_tool_calls=True)
        completion = await engine.complete(asked, deltas.append if streamed else None)
        (found,) = completion.choices
        assert (found.text, found.finish_reason, len(found.tool_calls)) == ("", "tool_calls", count)
        assert {call.function.name for call in found.tool_calls} == {"get_weather"}
        assert json.loads(found.tool_calls[-1].function.arguments) == {"city": "Ulm"}
        if streamed:
            assert all(not delta.text for delta in deltas) and len([d for d in deltas if d.tool_calls]) == 2 * count
        sent = server.rows[-1].body
        jsonschema.validate(json.loads(text), sent["format"])
        assert "tools" not in sent
        assert (
            '"get_weather"' in sent["messages"][0]["content"]
            and "You are a recruiter." in sent["messages"][0]["content"]
        )


@pytest.mark.asyncio
async def test_a_forced_call_that_is_cut_off_says_so_and_one_that_is_none_is_tried_again(server, engine):
    server.play(answer(content='{"name": "get_w').but(done_reason="length"))
    (choice,) = (await engine.complete(chat(tools=[WEATHER], tool_choice=NAMED))).choices
    assert (choice.finish_reason, choice.tool_calls) == ("length", ())
    server.play(answer(content="Well"))
    with pytest.raises(EngineError) as caught:
        await engine.complete(chat(tools=[WEATHER], tool_choice=NAMED))
    assert caught.value.kind is ErrorKind.INTERRUPTED


def test_the_schema_of_a_forced_call_holds_each_tools_own_definitions() -> None:
    other = {"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}, "next": {"$ref": "#"}},
             "$defs": {"City": {"const": 3}}}  # fmt: skip
    offer = offer_of(chat(tools=[WEATHER, {"type": "function", "function": {"name": "other", "parameters": other}}],
                          tool_choice="required", parallel_tool_calls=False))  # fmt: skip
    assert offer is not None
    schema = forced_format(offer)
    jsonschema.validate({"name": "get_weather", "arguments": {"city": "Ulm"}}, schema)
    jsonschema.validate({"name": "other", "arguments": {"city": 3, "next": {"city": 3}}}, schema)
    for wrong in ({"name": "other", "arguments": {"city": "Ulm"}}, {"name": "get_weather", "arguments": {}},
                  {"name": "other", "arguments": {"next": {"city": 4}}}, {"name": "nobody", "arguments": {}},
                  {"name": "other", "arguments": {"more": 1}}):  # fmt: skip
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_calls_and_their_results_go_to_the_model_as_ollama_writes_them() -> None:
    history = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [
            {"id": "call_7", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Ulm"}'}}]},
        {"role": "tool", "tool_call_id": "call_7", "name": "get_weather", "content": "11 degrees"},
    ]  # fmt: skip
    messages = msgspec.to_builtins(body(messages=history, tools=[WEATHER]).messages)
    assert messages[1:] == [
        {"role": "assistant", "content": "", "thinking": "Hm.",
         "tool_calls": [{"id": "call_7", "function": {"name": "get_weather", "arguments": {"city": "Ulm"}}}]},
        {"role": "tool", "content": "11 degrees", "tool_name": "get_weather", "tool_call_id": "call_7"},
    ]  # fmt: skip
    called = {"role": "assistant", "function_call": {"name": "get_weather", "arguments": '{"city":"Ulm"}'}}
    legacy = [history[0], called, {"role": "function", "name": "get_weather", "content": "11 degrees"}]
    found = body(messages=legacy, functions=[WEATHER["function"]])
    assert found.tools == [WEATHER] and found.messages[2].tool_name == "get_weather"


def test_what_the_model_cannot_do_is_a_400_that_says_what_it_can() -> None:
    error = refused("completion", tools=[WEATHER])
    assert error.param == "tools" and "completion" in error.message and "tool_choice" in error.message
    assert refused("completion", functions=[PING["function"]]).param == "functions"
    assert body("completion", tools=[WEATHER], tool_choice=NAMED).format and body(tools=[WEATHER]).tools
    history = [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "ping", "arguments": ""}}]}]
    assert refused("completion", messages=history).param == "messages[0].tool_calls"
    result = [{"role": "user"}, {"role": "tool", "tool_call_id": "1", "content": "x"}]
    assert refused("completion", messages=result).param == "messages[1].role"
    formatted = {"response_format": {"type": "json_object"}, "tools": [PING]}
    assert refused(**formatted).param == "response_format"
    assert body(**formatted, tool_choice="none").format == "json"


def image(url: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What"}, {"type": "image_url", "image_url": url}, {"type": "text", "text": "?"}]
    return {"messages": [{"role": "user", "content": parts}]}


@pytest.mark.asyncio
async def test_an_image_goes_to_a_model_that_sees(server, able):
    server.play(answer(content="A pixel."))
    await able.complete(chat(**image({"url": f"data:image/png;base64,{PNG}", "detail": "low"})))
    assert server.rows[-1].body["messages"] == [{"role": "user", "content": "What?", "images": [PNG]}]


def test_an_image_elsewhere_broken_or_for_a_blind_model_is_refused_by_name() -> None:
    place = "messages[0].content[1].image_url"
    data = f"data:image/png;base64,{PNG}"
    assert body("vision", **image(data)).messages[0].images == [PNG]
    for url in (
        "https://a/b.png",
        "data:text/plain;base64,aa",
        "",
        None,
        {"url": 3},
        {},
        data[:-3],
        "data:;base64,",
        "data:;base64,é",
    ):
        assert refused("completion", "vision", **image(url)).param == place, url
    assert "data:image/png;base64," in refused(**image("https://a/b.png")).message
    error = refused("completion", **image(data))
    assert error.param == place and "cannot see images" in error.message


@pytest.mark.asyncio
async def test_what_no_message_can_have_is_refused_before_anything_is_sent(server, engine):
    sound = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]
    with pytest.raises(EngineError) as caught:
        await engine.complete(chat(messages=sound))
    assert caught.value.code == "unsupported_parameter" and server.rows == []


@pytest.mark.asyncio
async def test_streamed_log_probabilities_are_those_of_the_answer(server, engine):
    server.play(recording("chat_logprobs"))
    deltas: list[ChoiceDelta] = []
    completion = await engine.complete(asking_for("chat_logprobs"), deltas.append)
    assert [token for delta in deltas for token in delta.logprobs or ()] == completion.choices[0].logprobs
