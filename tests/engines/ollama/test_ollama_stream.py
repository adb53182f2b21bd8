"""Streaming, from the recorded NDJSON."""

from __future__ import annotations

import json

import pytest
from ollama_replay import Recording, recording
from ollama_requests import asking_for, chat

from gristmill.engines.errors import EngineError, ErrorKind

pytestmark = pytest.mark.asyncio


def lines(stream: Recording) -> list[bytes]:
    return stream.body.splitlines(keepends=True)


async def failure(engine) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await engine.complete(chat(), lambda delta: None)
    return caught.value


async def test_the_text_comes_as_it_was_streamed_and_adds_up(server, engine):
    stream = recording("chat_stream")
    server.play(stream)
    pieces: list[tuple[int, str]] = []
    asked = asking_for("chat_stream")
    completion = await engine.complete(asked, lambda delta: pieces.append((delta.index, delta.text)))
    recorded = [json.loads(line) for line in lines(stream)]
    assert [text for _, text in pieces] == [each["message"]["content"] for each in recorded if not each["done"]]
    assert completion.choices[0].text == "".join(text for _, text in pieces)
    assert completion.completion_tokens == recorded[-1]["eval_count"]
    assert completion.choices[0].finish_reason == "length"
    assert server.rows[-1].body == stream.sent


async def test_a_stream_that_ends_early_is_a_failure(server, engine):
    stream = recording("chat_stream")
    server.play(stream._replace(body=b"".join(lines(stream)[:-1])))
    assert (await failure(engine)).kind is ErrorKind.INTERRUPTED


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (recording("error_bad_format").json["error"], ErrorKind.INVALID_REQUEST),
        ("llama runner process has unexpectedly stopped", ErrorKind.INTERRUPTED),
    ],
)
async def test_an_error_within_a_stream_is_told_apart_like_any_other(server, engine, text, kind):
    stream = recording("chat_stream")
    server.play(stream._replace(body=lines(stream)[0] + json.dumps({"error": text}).encode() + b"\n"))
    assert (await failure(engine)).kind is kind


async def test_an_error_before_the_stream_keeps_its_status(server, engine):
    server.play(recording("error_too_long"))
    assert (await failure(engine)).code == "context_length_exceeded"


async def test_a_streamed_choice_comes_once_and_without_quotes(server, engine):
    stream = recording("chat_stream")
    first, *_, last = [json.loads(line) for line in lines(stream)]
    first["message"]["content"], last["done_reason"] = '"no"', "stop"
    server.play(stream._replace(body=b"".join(json.dumps(each).encode() + b"\n" for each in (first, last))))
    pieces: list[str] = []
    wanted = chat(structured_outputs={"choice": ["yes", "no"]})
    await engine.complete(wanted, lambda delta: pieces.append(delta.text))
    assert pieces == ["no"]
