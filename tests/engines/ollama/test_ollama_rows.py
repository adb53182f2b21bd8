"""Every recorded answer, replayed to the engine: what it makes of it."""

from __future__ import annotations

import asyncio

import pytest
from ollama_replay import MODEL, NAMES, recording
from ollama_requests import SCHEMA, asking_for, chat, complete

from gristmill.engines.errors import EngineError, ErrorKind

pytestmark = pytest.mark.asyncio

ANSWERED = ("chat_first", "chat_second", "chat_length", "chat_logprobs", "chat_schema", "chat_schema_logprobs")
REFUSED = {
    "error_bad_format": (400, "response_format", "invalid_value"),
    "error_bad_option_type": (400, "max_completion_tokens", "invalid_value"),
    "error_too_long": (400, "messages", "context_length_exceeded"),
    "error_unknown_model": (404, "model", "model_not_found"),
    "error_bad_json": (400, None, None),
    "error_keep_alive_string": (400, None, None),
    "embed": (400, None, "invalid_value"),
    "v1_error_unknown_model": (404, "model", "model_not_found"),
}
#: Answers to something else than a row: none may pass for a completion.
FOREIGN = ("unload", "prewarm", "v1_chat", "v1_chat_logprobs", "v1_models", "version", "tags", "ps_loaded", "show")
ELSEWHERE = {"chat_reload", "chat_stream", "generate_context", "ps_empty", "silent_truncation", "unknown_option",
             "v1_batches"}  # fmt: skip


async def failure(engine, request=None) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await engine.complete(request or chat())
    return caught.value


async def test_every_recording_is_replayed():
    assert set(NAMES) == {*ANSWERED, *REFUSED, *FOREIGN, *ELSEWHERE}


@pytest.mark.parametrize("name", ANSWERED)
async def test_a_recorded_row_is_asked_for_exactly_as_recorded_and_understood(server, engine, name):
    server.play(recording(name))
    completion = await engine.complete(asking_for(name))
    assert server.rows[-1].body == recording(name).sent
    answer = recording(name).json
    (choice,) = completion.choices
    assert choice.text == answer["message"]["content"]
    assert choice.finish_reason == answer["done_reason"]
    assert (completion.prompt_tokens, completion.completion_tokens) == (
        answer["prompt_eval_count"],
        answer["eval_count"],
    )
    assert completion.model == MODEL


async def test_cached_tokens_are_what_the_server_says_or_nothing(server, engine):
    # The recorded 0.33.0 counts reused tokens without saying so; 0.33.3 adds prompt_eval_cached_count.
    server.play(recording("chat_second"), recording("chat_second").but(prompt_eval_cached_count=0))
    server.play(recording("chat_second").but(prompt_eval_cached_count=190))
    cached = [(await engine.complete(asking_for("chat_second"))).cached_tokens for _ in range(3)]
    assert cached == [None, 0, 190]


async def test_logprobs_are_the_recorded_ones(server, engine):
    server.play(recording("chat_logprobs"))
    (choice,) = (await engine.complete(asking_for("chat_logprobs"))).choices
    (token,) = choice.logprobs
    recorded = recording("chat_logprobs").json["logprobs"][0]
    assert (token.token, token.logprob, token.bytes) == ("1", recorded["logprob"], [49])
    assert [top.token for top in token.top_logprobs] == [top["token"] for top in recorded["top_logprobs"]]


async def test_logprobs_may_come_without_alternatives(server, engine):
    bare = [{"token": "1", "logprob": -2.2}]  # Ollama leaves out what is empty
    server.play(recording("chat_logprobs").but(logprobs=bare))
    (choice,) = (await engine.complete(chat(logprobs=True))).choices
    assert (choice.logprobs[0].bytes, choice.logprobs[0].top_logprobs) == (None, [])
    assert "top_logprobs" not in server.rows[-1].body


async def test_a_row_is_not_given_logprobs_it_did_not_ask_for(server, engine):
    server.play(recording("chat_logprobs"))
    assert (await engine.complete(chat())).choices[0].logprobs is None


async def test_missing_logprobs_are_a_failure(server, engine):
    server.play(recording("chat_first"))
    assert (await failure(engine, chat(logprobs=True))).kind is ErrorKind.INTERRUPTED


@pytest.mark.parametrize("name", REFUSED)
async def test_a_callers_mistake_is_refused_once_whatever_status_ollama_gives_it(server, engine, name):
    server.play(recording(name))
    error = await failure(engine)
    assert (error.kind, error.status, error.param, error.code) == (ErrorKind.INVALID_REQUEST, *REFUSED[name])


async def test_a_prompt_that_is_too_long_is_refused_with_the_servers_numbers(server, engine):
    server.play(recording("error_too_long"))
    error = await failure(engine, asking_for("error_too_long"))
    assert "4096 tokens" in error.message and "6010 in the prompt, 24 in the completion" in error.message
    assert server.rows[-1].body == recording("error_too_long").sent


@pytest.mark.parametrize("name", FOREIGN)
async def test_what_is_no_answer_to_a_row_never_passes_for_one(server, engine, name):
    server.play(recording(name))
    assert (await failure(engine)).kind is ErrorKind.INTERRUPTED


async def test_something_else_at_the_address_pauses_the_batch(server, engine):
    server.play(recording("v1_batches"))
    error = await failure(engine)
    assert error.kind is ErrorKind.UNAVAILABLE and "404 page not found" in error.message


async def test_a_busy_server_is_given_the_pause_it_asks_for(server, engine):
    busy = "server busy, please try again.  maximum pending requests exceeded"
    server.play(recording("error_unknown_model").with_status(503, busy, Retry_After="7"))
    server.play(recording("error_unknown_model").with_status(503, busy))
    first, second = await failure(engine), await failure(engine)
    assert (first.kind, first.retry_after) == (ErrorKind.OVERLOADED, 7.0)
    assert (second.kind, second.retry_after) == (ErrorKind.OVERLOADED, None)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("llama runner process has unexpectedly stopped", ErrorKind.INTERRUPTED),
        ("prediction aborted, token repeat limit reached", ErrorKind.INTERRUPTED),
        ("model requires more system memory (9.1 GiB) than is available (7.7 GiB)", ErrorKind.UNAVAILABLE),
        ("timed out waiting for llama runner to start", ErrorKind.UNAVAILABLE),
        ("no user query found in messages", ErrorKind.INVALID_REQUEST),
    ],
)
async def test_other_500s_are_told_apart_by_their_text(server, engine, text, kind):
    server.play(recording("error_bad_format").with_status(500, text))
    error = await failure(engine)
    assert error.kind is kind and text in error.message


async def test_an_answer_that_is_not_done_is_a_failure(server, engine):
    counts = {"total_duration": None, "prompt_eval_count": None, "eval_count": None, "done_reason": None}
    server.play(recording("chat_first").but(done=False, **counts))
    error = await failure(engine)
    assert error.kind is ErrorKind.INTERRUPTED and "done" in error.message


async def test_an_answer_without_a_reason_is_a_failure(server, engine):
    server.play(recording("chat_first").but(done_reason=None))
    assert (await failure(engine)).kind is ErrorKind.INTERRUPTED


async def test_a_body_that_is_cut_is_a_failure(server, engine):
    whole = recording("chat_first")
    server.play(whole._replace(body=whole.body[:100]))
    assert (await failure(engine)).kind is ErrorKind.INTERRUPTED


async def test_a_prompt_cut_in_silence_is_a_failure(server, engine):
    server.play(recording("silent_truncation"))
    sent = recording("silent_truncation").sent
    error = await failure(engine, chat(messages=sent["messages"], max_tokens=2))
    assert (error.kind, error.code) == (ErrorKind.INVALID_REQUEST, "context_length_exceeded")
    assert "2050 tokens" in error.message


async def test_an_answer_that_pushed_the_prompt_out_of_the_context_is_a_failure(server, engine):
    server.play(recording("chat_first").but(prompt_eval_count=4000, eval_count=200))
    error = await failure(engine)
    assert (error.kind, error.code) == (ErrorKind.INVALID_REQUEST, "context_length_exceeded")


async def test_a_structured_answer_that_is_not_json_is_a_failure(server, engine):
    wanted = {"type": "json_schema", "json_schema": {"name": "score", "schema": SCHEMA}}
    server.play(recording("chat_schema").but(text="Score: 10"))
    assert (await failure(engine, chat(response_format=wanted))).kind is ErrorKind.INTERRUPTED
    server.play(recording("chat_schema_logprobs"))
    cut = await engine.complete(chat(response_format=wanted))
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == ('{"score": 10', "length")


async def test_a_choice_comes_back_without_quotes(server, engine):
    server.play(recording("chat_schema").but(text='"yes"'))
    completion = await engine.complete(chat(structured_outputs={"choice": ["yes", "no"]}))
    assert completion.choices[0].text == "yes"
    assert server.rows[-1].body["format"] == {"type": "string", "enum": ["yes", "no"]}


async def test_a_text_completion_goes_without_the_chat_template(server, engine):
    completion = await engine.complete(complete("Score:"))
    assert completion.choices[0].text == recording("generate_context").json["response"]
    assert completion.prompt_tokens == 216
    body = server.rows[-1].body
    assert (body["prompt"], body["raw"], body["truncate"], body["keep_alive"]) == ("Score:", True, False, -1)
    assert "context" not in body


async def test_an_option_ollama_does_not_know_would_be_ignored_so_none_is_sent(server, engine):
    server.play(recording("unknown_option"))
    await engine.complete(asking_for("unknown_option"))
    sent = recording("unknown_option").sent
    del sent["options"]["no_such"]
    assert server.rows[-1].body == sent


async def test_a_server_that_goes_away_is_unavailable(server, engine):
    server.stop()
    error = await failure(engine)
    assert error.kind is ErrorKind.UNAVAILABLE and server.url in error.message


async def test_cancelling_a_row_closes_its_connection(server, engine):
    server.holding = True
    row = asyncio.create_task(engine.complete(chat()))
    await asyncio.to_thread(server.held.wait, 10)
    row.cancel()
    with pytest.raises(asyncio.CancelledError):
        await row
    assert await asyncio.to_thread(server.gone.wait, 10)
