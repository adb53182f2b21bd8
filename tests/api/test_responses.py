"""``/v1/responses`` by the official client, which checks every answer and event strictly against its own types."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from contract import check_error
from jobs import run
from openai.types.responses import Response
from pydantic import BaseModel

from requests_jsonl import jsonl
from server_process import ServerProcess


class Score(BaseModel):
    score: int


@pytest.fixture(scope="module")
def strict(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="unused", _strict_response_validation=True) as checked:
        yield checked


def test_a_response_is_what_a_chat_would_say(strict: openai.OpenAI) -> None:
    response = strict.responses.create(model="simulated", instructions="Be nice.", input="Hi", metadata={"a": "b"})
    messages = [{"role": "system", "content": "Be nice."}, {"role": "user", "content": "Hi"}]
    chat = strict.chat.completions.create(model="simulated", messages=messages)  # type: ignore[arg-type]
    assert response.output_text == chat.choices[0].message.content
    assert response.status == "completed" and response.completed_at is not None and response.error is None
    assert response.usage is not None and chat.usage is not None
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.total_tokens == chat.usage.total_tokens
    assert response.metadata == {"a": "b"} and response.instructions == "Be nice."
    assert response.model_extra == {"store": False}


def test_cached_tokens_are_told_and_a_cut_answer_is_incomplete(strict: openai.OpenAI) -> None:
    long = "word " * 400
    strict.responses.create(model="simulated", input=long)
    response = strict.responses.create(model="simulated", input=long, max_output_tokens=2)
    assert response.usage is not None and response.usage.input_tokens_details.cached_tokens > 400
    assert response.status == "incomplete" and response.completed_at is None
    assert response.incomplete_details is not None and response.incomplete_details.reason == "max_output_tokens"
    assert response.output[-1].status == "incomplete" and len(response.output_text.split()) == 2  # type: ignore[union-attr]


def test_a_stream_says_the_same(strict: openai.OpenAI) -> None:
    asked = {"model": "simulated", "input": [{"role": "user", "content": "Hi"}]}
    whole = strict.responses.create(**asked)  # type: ignore[call-overload]
    events = list(strict.responses.create(**asked, stream=True))  # type: ignore[call-overload]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    names = [event.type.removeprefix("response.") for event in events]
    assert names[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert names[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert set(names[4:-4]) == {"output_text.delta"} and len(names) > 10
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[-1].response.output_text == whole.output_text
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens
    with strict.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_text == whole.output_text


def test_structured_answers_are_parsed(strict: openai.OpenAI) -> None:
    parsed = strict.responses.parse(model="simulated", input="Rate it", text_format=Score)
    assert isinstance(parsed.output_parsed, Score)
    with strict.responses.stream(model="simulated", input="Rate it", text_format=Score) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed


def test_responses_are_not_kept(strict: openai.OpenAI) -> None:
    response = strict.responses.create(model="simulated", input="Hi")
    for call in (strict.responses.retrieve, strict.responses.delete, strict.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="only responses with 'background'") as refused:
            call(response.id)
        assert refused.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError, match="send the earlier items again") as continued:
        strict.responses.create(model="simulated", input="Hi", previous_response_id=response.id)
    assert continued.value.param == "previous_response_id"


TOOL: dict[str, Any] = {
    "type": "function", "name": "rate", "description": "Rate it", "strict": True,
    "parameters": {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"],
                   "additionalProperties": False},
}  # fmt: skip


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "rate"}])
def test_functions_are_called(strict: openai.OpenAI, choice: Any) -> None:
    asked: dict[str, Any] = {"model": "simulated", "input": "x", "tools": [TOOL], "tool_choice": choice}
    whole = strict.responses.create(**asked)
    call = whole.output[-1]
    assert call.type == "function_call" and call.name == "rate" and Score.model_validate_json(call.arguments)
    assert whole.tools[0].name == "rate" and whole.tool_choice is not None  # type: ignore[union-attr]
    events = list(strict.responses.create(**asked, stream=True))
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == call.arguments == events[-1].response.output[-1].arguments
    assert strict.responses.create(**asked | {"tool_choice": "none"}).output_text
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    further = [{"role": "user", "content": "x"}, call.model_dump(), result]
    assert strict.responses.create(**asked | {"input": further, "tool_choice": "none"}).output_text


def test_what_is_wrong_with_a_tool_is_named(strict: openai.OpenAI) -> None:
    for given, param in (
        ({"tools": [TOOL | {"parameters": {"type": "string"}}]}, "tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            strict.responses.create(model="simulated", input="x", **given)  # type: ignore[call-overload]
        assert refused.value.param is not None and refused.value.param.startswith(param), refused.value


@pytest.mark.parametrize("streamed", [False, True])
def test_the_last_items_can_be_referred_to(strict: openai.OpenAI, streamed: bool) -> None:
    def respond(items: list[Any], **given: Any) -> Response:
        asked: dict[str, Any] = {"model": "simulated", "input": items} | given
        if not streamed:
            return strict.responses.create(**asked)
        return list(strict.responses.create(**asked, stream=True))[-1].response

    question, further = {"role": "user", "content": "Hi"}, {"role": "user", "content": "Go on"}
    first = respond([question])
    reference = {"type": "item_reference", "id": first.output[0].id}
    whole = respond([question, first.output[0].model_dump(), further])
    for form in (reference, {"id": reference["id"]}):
        assert respond([question, form, further]).output_text == whole.output_text
    assert respond([question, further]).output_text != whole.output_text
    private = respond([question], store=False)
    with pytest.raises(openai.NotFoundError, match="Send the item itself") as unknown:
        respond([question, {"type": "item_reference", "id": private.output[0].id}])
    assert (unknown.value.code, unknown.value.param) == ("item_not_found", "input[1]")


def test_errors_name_what_the_client_sent(strict: openai.OpenAI) -> None:
    image = {"type": "input_image", "image_url": "data:,x", "detail": "auto"}
    for given, param in (
        ({"input": "word " * 600_000}, "input"),
        ({"input": [{"role": "user", "content": [image]}]}, "input"),
        ({"input": "x", "reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"input": "x", "include": ["message.output_text.logprobs"]}, "include"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "text": {"verbosity": "high"}}, "text.verbosity"),
    ):
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as refused:
                strict.responses.create(model="simulated", stream=stream, **given)  # type: ignore[call-overload]
            assert refused.value.param == param, refused.value
            assert f"'{param}'" in refused.value.message or refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError, match="This server has: simulated"):
        strict.responses.create(model="nobody", input="x", stream=True)


def test_a_body_that_nests_too_deeply_is_refused(server: ServerProcess) -> None:
    headers = {"content-type": "application/json"}
    for depth in (300, 10_000, 100_000):
        item = '{"role": "user", "content": ' + "[" * depth + "]" * depth + "}"
        body = f'{{"model": "simulated", "input": [{item}]}}'
        answer = httpx.post(f"{server.base_url}/responses", content=body, headers=headers)
        assert answer.status_code == 400
        check_error(answer.json())


def test_an_engine_that_fails_is_an_ordinary_error(tmp_path: Path) -> None:
    options = ("--engine-option", "fail_on=bad", "--engine-option", "failure_kind=overloaded")
    with ServerProcess(tmp_path / "data", *options) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="unused", max_retries=0)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError):
                client.responses.create(model="simulated", input="bad", stream=stream)


def test_a_client_that_leaves_in_the_middle_frees_the_engine(tmp_path: Path) -> None:
    journal = tmp_path / "answered"
    options = (
        "--engine-option",
        "slots=1",
        "--engine-option",
        "decode_speed=8",
        "--engine-option",
        f"journal={journal}",
    )
    with ServerProcess(tmp_path / "data", *options) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="unused", max_retries=0)
        stream = client.responses.create(model="simulated", input="the one", stream=True)
        assert next(iter(stream)).type == "response.created"
        stream.close()
        # The request would have taken one second; one that is begun after it takes as long.
        client.responses.create(model="simulated", input="the other")
        time.sleep(0.2)
        assert journal.read_text().splitlines() == ["user: the other"]
        assert not any("Traceback" in line or "unexpectedly" in line for line in server.log)


def test_the_same_request_as_lines_of_a_batch(strict: openai.OpenAI) -> None:
    rubric = "Rate the candidate. " * 50
    bodies = [{"model": "simulated", "instructions": rubric, "input": f"candidate {i % 9}", "temperature": 0}
              for i in range(10)]  # fmt: skip
    bodies.append({"model": "simulated", "input": "x", "previous_response_id": "resp_1"})
    lines = [
        {"custom_id": str(i), "method": "POST", "url": "/v1/responses", "body": body} for i, body in enumerate(bodies)
    ]
    batch = run(strict, jsonl(lines), endpoint="/v1/responses")
    assert batch.status == "completed" and batch.output_file_id is not None and batch.error_file_id is not None
    plan = batch.model_extra["gristmill"] if batch.model_extra else None
    assert batch.usage is not None and batch.usage.input_tokens_details.cached_tokens > 8 * 200, plan
    answered = [json.loads(line) for line in strict.files.content(batch.output_file_id).text.splitlines()]
    assert len(answered) == 10
    for line, body in zip(answered, bodies, strict=False):
        response = Response.model_validate(line["response"]["body"], strict=False)
        assert response.output_text == strict.responses.create(**body).output_text  # type: ignore[call-overload]
    # The tenth asks what the first asks.
    assert answered[0]["response"]["body"] == answered[9]["response"]["body"]
    (failed,) = [json.loads(line) for line in strict.files.content(batch.error_file_id).text.splitlines()]
    assert failed["response"]["body"]["error"]["param"] == "previous_response_id"


def test_a_line_without_input_is_refused_before_anything_runs(strict: openai.OpenAI) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {"model": "simulated"}}
    batch = run(strict, jsonl([line]), endpoint="/v1/responses")
    assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
    assert batch.errors.data[0].param == "body.input"


BIG = "1" + "0" * 30
ODD_FIELDS = [
    f'"tools": [{{"type": "function", "name": "f", "parameters": {{"type": "object", "x": {BIG}}}}}]',
    f'"text": {{"format": {{"type": "json_schema", "name": "n", "schema": {{"type": "object", "x": {BIG}}}}}}}',
    f'"tool_choice": {{"type": "function", "name": "f", "x": {BIG}}}',
    f'"tool_choice": {{"type": "allowed_tools", "mode": "auto", "tools": [], "x": {BIG}}}',
    f'"prompt_cache_options": {{"x": {BIG}}}, "metadata": {{"a": "\\ud800"}}',
    f'"input": [{{"role": "user", "content": [{{"type": "input_audio", "input_audio": {{"x": {BIG}}}}}]}}]',
    f'"logit_bias": {{"1": {BIG}}}', f'"seed": {BIG}', f'"max_tool_calls": {BIG}', '"instructions": "\\ud800"',
]  # fmt: skip


@pytest.mark.parametrize("background", ["false", "true"])
def test_no_number_or_text_is_too_odd_for_an_answer(server: ServerProcess, background: str) -> None:
    for odd in ODD_FIELDS:
        body = f'{{"model": "simulated", "input": "x", "background": {background}, {odd}}}'
        answer = httpx.post(f"{server.base_url}/responses", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400), (odd, answer.text)
        if answer.status_code == 400:
            check_error(answer.json())
        elif background == "true":
            found = httpx.get(f"{server.base_url}/responses/{answer.json()['id']}")
            assert found.status_code == 200, (odd, found.text)
    assert not any("unexpected" in line for line in server.log)
