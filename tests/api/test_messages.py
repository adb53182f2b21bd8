"""Anthropic's Messages API by its official SDK."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message
from anthropic_client import ENTRY, check_error, message_client, user

from server_process import ServerProcess

VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture(scope="module")
def claude(server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with message_client(server) as client:
        yield client


def ask(claude: anthropic.Anthropic, **params: Any) -> Message:
    found = claude.messages.create(**(ENTRY | {"messages": user("Hi")} | params))
    return Message.model_validate(found.to_dict())


def test_a_message_is_answered_with_its_usage(claude: anthropic.Anthropic) -> None:
    found = ask(claude, system="Be brief.", metadata={"user_id": "u"})
    assert found.id.startswith("msg_") and found.model == "simulated" and found.stop_reason == "end_turn"
    (block,) = found.content
    assert block.type == "text" and len(block.text.split()) == 8 == found.usage.output_tokens
    assert ask(claude, max_tokens=3).stop_reason == "max_tokens"


def test_what_was_cached_is_told_apart(claude: anthropic.Anthropic) -> None:
    rubric = [{"type": "text", "text": "Rate by experience. " * 100, "cache_control": {"type": "ephemeral"}}]
    first = ask(claude, system=rubric, messages=user("A.")).usage
    second = ask(claude, system=rubric, messages=user("B.")).usage
    assert first.cache_read_input_tokens is not None and second.cache_read_input_tokens is not None
    assert second.cache_read_input_tokens >= 450 and second.input_tokens < 50
    totals = {use.input_tokens + (use.cache_read_input_tokens or 0) for use in (first, second)}
    assert totals == {claude.messages.count_tokens(model="simulated", system=rubric, messages=user("A.")).input_tokens}


def test_a_stop_sequence_that_was_found_is_told(claude: anthropic.Anthropic) -> None:
    (block,) = ask(claude).content
    assert block.type == "text"
    end = block.text.split()[3]
    found = ask(claude, stop_sequences=["never", end])
    assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", end)
    with claude.messages.stream(**ENTRY, messages=user("Hi"), stop_sequences=[end]) as stream:
        assert stream.get_final_message().stop_sequence == end


def test_a_stream_says_what_the_message_says(claude: anthropic.Anthropic) -> None:
    whole = ask(claude)
    with claude.messages.stream(**ENTRY, messages=user("Hi")) as stream:
        kinds = [event.type for event in stream]
        found = stream.get_final_message()
    assert kinds[:2] == ["message_start", "content_block_start"] and kinds[-1] == "message_stop"
    assert found.content[0].text == whole.content[0].text  # type: ignore[union-attr]
    assert (found.stop_reason, found.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert found.usage.input_tokens + (found.usage.cache_read_input_tokens or 0) > 0


def test_a_schema_is_kept_to(claude: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"],
              "additionalProperties": False}  # fmt: skip
    found = ask(claude, max_tokens=50, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert isinstance(json.loads(found.content[0].text)["score"], int)  # type: ignore[union-attr]


ERRORS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "claude"}, 404, "not_found_error", "simulated"),
    ({"extra_body": {"max_tokens": None}}, 400, "invalid_request_error", "max_tokens"),
    ({"extra_body": {"mcp_servers": []}}, 400, "invalid_request_error", "mcp_servers"),
    ({"extra_body": {"top_k": 5}}, 400, "invalid_request_error", "'top_k' is not supported"),
    ({"thinking": {"type": "disabled"}}, 400, "invalid_request_error", "'thinking' is not supported"),
    ({"stop_sequences": list("abcde")}, 400, "invalid_request_error", "stop_sequences"),
    ({"tools": [{"name": "a b", "input_schema": {}}]}, 400, "invalid_request_error", "tools[0].function.name"),
    (
        {"messages": [*user("a"), {"role": "assistant", "content": "b"}]},
        400,
        "invalid_request_error",
        "to be continued",
    ),
    ({"messages": user("x " * 400_000)}, 400, "invalid_request_error", "maximum context length"),
]


@pytest.mark.parametrize(("params", "status", "kind", "said"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_refusals(
    claude: anthropic.Anthropic, params: dict[str, Any], status: int, kind: str, said: str, stream: bool
) -> None:
    with pytest.raises(anthropic.APIStatusError) as refused:
        claude.messages.create(**(ENTRY | {"messages": user("Hi"), "stream": stream} | params))
    assert (refused.value.status_code, refused.value.type) == (status, kind)
    assert said in (refused.value.api_message or "")


def test_the_version_header_is_insisted_on_and_a_key_is_not(server: ServerProcess) -> None:
    root = server.base_url.removesuffix("/v1")
    body = ENTRY | {"messages": user("Hi")}
    with httpx.Client(base_url=root) as http:
        for headers, said in (({}, "header is required"), ({"anthropic-version": "1999-01-01"}, "not a valid version")):
            for method, path in (("POST", "/v1/messages"), ("GET", "/v1/messages/batches")):
                answer = http.request(method, path, json=body, headers=headers)
                assert answer.status_code == 400 and said in answer.json()["error"]["message"]
                check_error(answer)
        for version in ("2023-06-01", "2026-10-21"):
            assert http.post("/v1/messages", json=body, headers={"anthropic-version": version}).status_code == 200


def test_whatever_fails_on_these_paths_fails_in_anthropics_words(server: ServerProcess) -> None:
    root = server.base_url.removesuffix("/v1")
    with httpx.Client(base_url=root, headers=VERSION) as http:
        for method, path, options, status, kind in (
            ("GET", "/v1/messages", {}, 405, "invalid_request_error"),
            ("GET", "/v1/messages/nowhere/at/all", {}, 404, "not_found_error"),
            ("POST", "/v1/messages", {"content": b"{}"}, 415, "invalid_request_error"),
            ("POST", "/v1/messages", {"json": {}, "headers": {"Host": "evil.example"}}, 403, "permission_error"),
            ("POST", "/v1/messages", {"content": b" " * (65 << 20), "headers": {"Content-Type": "application/json"}},
             413, "request_too_large"),
        ):  # fmt: skip
            answer = http.request(method, path, **options)
            assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind), answer.text
            check_error(answer)
        # And those of OpenAI's paths in OpenAI's.
        assert set(http.get("/v1/nowhere").json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [("overloaded", 429, "rate_limit_error"), ("unavailable", 529, "overloaded_error"),
     ("timeout", 504, "timeout_error"), ("interrupted", 500, "api_error")],
)  # fmt: skip
def test_failures_of_the_engine(tmp_path: Path, kind: str, status: int, error: str) -> None:
    options = ("--engine-option", "fail_on=Hi", "--engine-option", f"failure_kind={kind}")
    with ServerProcess(tmp_path / "data", *options) as server, message_client(server) as client:
        for stream in (False, True):
            with pytest.raises(anthropic.APIStatusError) as refused:
                client.messages.create(**ENTRY, messages=user("Hi"), stream=stream)
            assert (refused.value.status_code, refused.value.type) == (status, error)


def test_a_stream_that_its_reader_leaves_frees_the_engine(tmp_path: Path) -> None:
    options = ("--engine-option", "slots=1", "--engine-option", "decode_speed=2", "--concurrency", "1")
    with ServerProcess(tmp_path / "data", *options) as server, message_client(server) as client:
        with client.messages.stream(**ENTRY, messages=user("Hi")) as stream:
            for event in stream:
                if event.type == "text":
                    break
        assert client.messages.create(model="simulated", max_tokens=1, messages=user("Ho")).stop_reason == "max_tokens"


def test_many_at_once(claude: anthropic.Anthropic) -> None:
    found: list[Message] = []
    threads = [threading.Thread(target=lambda: found.append(ask(claude, messages=user("Ho")))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({message.id for message in found}) == 20 and len({str(message.content) for message in found}) == 1


def test_a_tool_is_called_and_its_result_sent_back(claude: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}
    tools: list[Any] = [{"name": "rate", "input_schema": schema}]
    forced: dict[str, Any] = {"model": "simulated", "max_tokens": 100, "tools": tools}
    turns: list[Any] = user("Rate candidate 7.")
    first = claude.messages.create(**forced, messages=turns, tool_choice={"type": "tool", "name": "rate"})
    assert first.stop_reason == "tool_use"
    (call,) = [block for block in first.content if block.type == "tool_use"]
    assert call.name == "rate" and isinstance(call.input["score"], int)
    with claude.messages.stream(**forced, messages=turns, tool_choice={"type": "any"}) as stream:
        streamed = stream.get_final_message()
    assert streamed.stop_reason == "tool_use" and isinstance(streamed.content[-1].input["score"], int)  # type: ignore[union-attr]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "stored"}
    turns += [first.to_param(), {"role": "user", "content": [result]}]
    last = claude.messages.create(**forced, messages=turns, tool_choice={"type": "none"})
    assert last.stop_reason == "end_turn" and last.content[0].type == "text"
