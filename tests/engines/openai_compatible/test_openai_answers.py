"""From recorded answers and errors of real servers to completions and failures."""

from __future__ import annotations

import json

import pytest
from openai_stand_in import RECORDINGS, chat, complete, recording

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.openai_compatible.answers import ChunkCollector
from gristmill.engines.openai_compatible.failures import failure, stream_failure
from gristmill.engines.openai_compatible.probe import cache_tokens
from gristmill.engines.protocol import Completion

SERVERS = ["llama.cpp", "vLLM"]


def collected(body: bytes, request=None, stream: bool = False) -> tuple[Completion, list[tuple[int, str]]]:
    said: list[tuple[int, str]] = []
    collector = ChunkCollector(request or chat(), lambda delta: said.append((delta.index, delta.text)))
    if stream:
        for line in body.splitlines():
            collector.add_line(line)
    else:
        collector.add(body)
    return collector.finish(), said


@pytest.mark.parametrize("server", SERVERS)
def test_an_answer_has_its_text_its_reason_and_all_counts(server):
    answer, _ = collected(recording("chat", server).body)
    assert answer.choices[0].text == "Water is indeed a" and answer.choices[0].finish_reason == "length"
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == (34, 4, 0)


@pytest.mark.parametrize("server", SERVERS)
def test_a_stream_gives_the_same_as_it_comes(server):
    answer, said = collected(recording("stream", server).body, stream=True)
    assert said == [(0, "Water"), (0, " is"), (0, " indeed")]
    assert answer.choices[0].text == "Water is indeed" and answer.choices[0].finish_reason == "length"
    assert (answer.prompt_tokens, answer.completion_tokens) == (34, 3)


@pytest.mark.parametrize("server", SERVERS)
def test_a_stream_that_ends_anywhere_before_its_counts_is_no_answer(server):
    lines = recording("stream", server).body.splitlines(keepends=True)
    counts = next(index for index, line in enumerate(lines) if b'"usage"' in line)
    for end in range(counts):
        with pytest.raises(EngineError) as caught:
            collected(b"".join(lines[:end]), stream=True)
        assert caught.value.kind is ErrorKind.INTERRUPTED


def test_cached_tokens_are_unknown_where_the_server_does_not_report_them():
    answer = json.loads(recording("chat", "vLLM").body)
    answer["usage"]["prompt_tokens_details"] = None  # as vLLM answers without --enable-prompt-tokens-details
    assert collected(json.dumps(answer).encode())[0].cached_tokens is None


def test_log_probabilities_are_as_many_as_were_asked_for():
    body = recording("logprobs").body
    two = collected(body, chat(logprobs=True, top_logprobs=2))[0].choices[0].logprobs
    assert two is not None and [each.token for each in two[0].top_logprobs] == ["Water", "The"]
    assert two[0].logprob == pytest.approx(-0.9555, abs=1e-3) and two[0].bytes == list(b"Water")
    none = collected(body, chat(logprobs=True))[0].choices[0].logprobs
    assert none is not None and none[0].top_logprobs == []
    assert collected(body, chat())[0].choices[0].logprobs is None


def test_a_text_completions_log_probabilities_are_sorted():
    # vLLM 0.32 lists the chosen token first, however unlikely, and one more than asked for.
    logprobs = {
        "text_offset": [0], "token_logprobs": [-4.67], "tokens": [" of"],
        "top_logprobs": [{" of": -4.67, " a": -1.8, " the": -2.42}],
    }  # fmt: skip
    choice = {"index": 0, "text": " of", "logprobs": logprobs, "finish_reason": "length"}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}).encode()
    (token,) = collected(body, complete(logprobs=2))[0].choices[0].logprobs or []
    assert token.logprob == -4.67 and [each.token for each in token.top_logprobs] == [" a", " the"]


@pytest.mark.parametrize(("parameters", "param"), [({"logprobs": True}, "logprobs"), ({"n": 3}, "n")])
def test_a_parameter_the_server_ignored_is_named(parameters, param):
    with pytest.raises(EngineError) as caught:
        collected(recording("chat").body, chat(**parameters))
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID_REQUEST, param)


@pytest.mark.parametrize("change", [{"finish_reason": "abort"}, {"finish_reason": None}, {"index": 1}])
def test_an_answer_the_server_gave_up_on_is_tried_again(change):
    answer = json.loads(recording("chat", "vLLM").body)
    answer["choices"][0] |= change
    with pytest.raises(EngineError) as caught:
        collected(json.dumps(answer).encode())
    assert caught.value.kind is ErrorKind.INTERRUPTED


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"choices": 3}', b'{"choices": []}', b"\xff"])
def test_what_is_no_answer_is_tried_again(body):
    with pytest.raises(EngineError) as caught:
        collected(body)
    assert caught.value.kind is ErrorKind.INTERRUPTED


@pytest.mark.parametrize(
    ("server", "name", "kind", "status", "param", "code"),
    [
        ("llama.cpp", "long", ErrorKind.INVALID_REQUEST, 400, "messages", "context_length_exceeded"),
        ("vLLM", "long", ErrorKind.INVALID_REQUEST, 400, "messages", "context_length_exceeded"),
        ("vLLM", "longout", ErrorKind.INVALID_REQUEST, 400, "max_tokens", 400),
        ("llama.cpp", "badschema", ErrorKind.INVALID_REQUEST, 400, None, 400),
        ("vLLM", "badschema", ErrorKind.INVALID_REQUEST, 400, None, 400),
        ("llama.cpp", "grammar", ErrorKind.INVALID_REQUEST, 400, None, 400),
        ("llama.cpp", "n3", ErrorKind.INVALID_REQUEST, 400, None, 400),
        ("llama.cpp", "template", ErrorKind.INVALID_REQUEST, 400, None, None),
        ("vLLM", "nomodel", ErrorKind.INVALID_REQUEST, 404, "model", "model_not_found"),
        ("llama.cpp", "badkey", ErrorKind.UNAVAILABLE, 503, None, None),
        ("llama.cpp", "loading", ErrorKind.UNAVAILABLE, 503, None, None),
        ("llama.cpp", "no_path", ErrorKind.UNAVAILABLE, 503, None, None),
    ],
)
def test_recorded_errors_mean_what_they_should(server, name, kind, status, param, code):
    recorded = recording(name, server)
    error = failure(recorded.status, recorded.body, None)
    assert (error.kind, error.status, error.param, error.code) == (kind, status, param, code)


def test_no_recorded_error_of_a_caller_is_ever_retried():
    for recorded in RECORDINGS:
        if recorded.status in (400, 500):
            assert failure(recorded.status, recorded.body, None).kind is ErrorKind.INVALID_REQUEST, recorded


#: Bodies from vLLM's source (``QueueOverflowError``, the authentication middleware) and from HTTP itself.
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, b'{"error": {"message": "The engine is currently busy", "code": 503}}', ErrorKind.OVERLOADED),
        (401, b'{"error": "Unauthorized"}', ErrorKind.UNAVAILABLE),
        (403, b"", ErrorKind.UNAVAILABLE),
        (408, b"", ErrorKind.OVERLOADED),
        (429, b"slow down", ErrorKind.OVERLOADED),
        (500, b"Internal Server Error", ErrorKind.INTERRUPTED),
        (501, b"", ErrorKind.INVALID_REQUEST),
        (502, b"<html>Bad Gateway</html>", ErrorKind.UNAVAILABLE),
        (504, b"", ErrorKind.TIMEOUT),
        (301, b"", ErrorKind.UNAVAILABLE),
        (422, b'{"detail": [{"loc": ["body"], "msg": "field required"}]}', ErrorKind.INVALID_REQUEST),
        (503, b'{"error": {"message": "x", "code": "engine_unavailable"}}', ErrorKind.UNAVAILABLE),
    ],
)
def test_statuses_mean_what_http_says(status, body, kind):
    assert failure(status, body, None).kind is kind


def test_the_pause_a_busy_server_asks_for_is_kept():
    assert failure(429, b"", "7").retry_after == 7.0
    assert failure(429, b"", "Fri, 31 Dec 1999 23:59:59 GMT").retry_after is None


def test_an_error_within_a_stream_has_the_status_it_names():
    too_long = json.loads(recording("long").body)["error"]
    assert stream_failure(too_long).code == "context_length_exceeded"
    assert stream_failure({"message": "EngineCore died", "code": 500}).kind is ErrorKind.INTERRUPTED
    assert stream_failure("boom").kind is ErrorKind.INTERRUPTED


def test_vllms_cache_size_is_read_from_its_metrics():
    metrics = (
        "# TYPE vllm:cache_config_info gauge\n"
        'vllm:cache_config_info{block_size="128",cache_dtype="auto",num_cpu_blocks="None",num_gpu_blocks="364"} 1.0\n'
    )
    assert cache_tokens(metrics) == 46592
    assert cache_tokens("") is None and cache_tokens('vllm:cache_config_info{num_gpu_blocks="None"} 1.0') is None
