"""Nothing a client sends is a 500, and every refusal is the contract's error object."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from anthropic_client import check_error as check_message_error
from contract import check_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

VERSION = {"anthropic-version": "2023-06-01"}
MESSAGES = [{"role": "user", "content": "Hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/chat/completions": {
        "model": "simulated", "messages": MESSAGES, "max_completion_tokens": 1, "max_tokens": 1, "temperature": 0.5,
        "top_p": 0.5, "n": 1, "seed": 1, "stop": "x", "stream": False, "stream_options": {"include_usage": True},
        "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {"1": 1}, "logprobs": False, "top_logprobs": 0,
        "response_format": {"type": "text"}, "structured_outputs": {"json": {"type": "object"}}, "tools": [],
        "tool_choice": "none", "metadata": {"a": "b"}, "user": "u", "modalities": ["text"],
    },
    "/completions": {
        "model": "simulated", "prompt": ["Hi", "Ho"], "max_tokens": 1, "temperature": 0.5, "n": 1, "seed": 1,
        "stop": ["x"], "logprobs": 0, "best_of": 1, "echo": False, "suffix": None, "logit_bias": {"1": 1},
    },
    "/responses": {
        "model": "simulated", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        "instructions": "i", "tools": [], "tool_choice": "auto", "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}}, "reasoning": {"effort": None}, "include": [], "max_output_tokens": 1,
        "temperature": 0.5, "top_p": 0.5, "top_logprobs": 0, "truncation": "disabled", "stream": False, "seed": 1,
        "metadata": {"a": "b"}, "user": "u", "store": False, "background": False, "previous_response_id": None,
    },
    "/score": {
        "model": "simulated", "query": "q", "items": ["a", "b"], "labels": ["0", "1"], "apply_softmax": True,
        "item_first": False,
    },
    "/messages": {
        "model": "simulated", "messages": MESSAGES, "max_tokens": 1, "system": "s", "stop_sequences": ["x"],
        "temperature": 0.5, "top_p": 0.5, "top_k": None, "tools": [], "tool_choice": {"type": "none"}, "stream": False,
        "thinking": {"type": "adaptive"}, "output_config": {"effort": None}, "metadata": {"user_id": "u"},
        "cache_control": {"type": "ephemeral"}, "service_tier": "auto", "speed": "standard",
    },
    "/messages/count_tokens": {"model": "simulated", "messages": MESSAGES, "system": [{"type": "text", "text": "s"}]},
    "/messages/batches": {"requests": [{"custom_id": "a", "params": {"model": "simulated"}}]},
    "/embeddings": {
        "model": "simulated", "input": ["a", "b"], "encoding_format": "float", "dimensions": 8, "user": "u",
    },
    "/batches": {
        "input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", "metadata": {"a": "b"},
        "output_expires_after": {"anchor": "created_at", "seconds": 3600}, "defaults": {"temperature": 0},
        "priority": 0, "reuse_answers": False,
    },
    "/uploads": {
        "bytes": 10, "filename": "f", "mime_type": "m", "purpose": "batch",
        "expires_after": {"anchor": "created_at", "seconds": 3600},
    },
}  # fmt: skip

#: As JSON text: some are no JSON, or no JSON that Python can hold.
VALUES = [
    str(2**31), str(2**63), str(2**64), str(2**70), str(-(2**70)), "1" * 5000, "-1", "0", "1e400", "-1e400", "1e-400",
    "0.1e99999", "NaN", "Infinity", "-0", "01", "true", "false", "null", '""', '"\\u0000"', '"\\ud800"', '"\\udc00x"',
    '"\\ud83d\\ude00"', '"' + "x" * 100_000 + '"', "[]", "{}", "[null]", "[[]]", '[""]', "[0.5]", "[true, false]",
    f"[{2**70}]", f"[[{2**70}]]", "[-1]", f'{{"1": {2**70}}}', f'{{"{2**70}": 1}}', '{"": 1}', '{"a": 1, "a": "b"}',
    "[" * 200 + "]" * 200, "[" * 5_000 + "]" * 5_000, '{"a":' * 5_000 + "1" + "}" * 5_000, "[" * 100_000,
    '"\\x"', '"unended', "\xff", "'a'", "{a: 1}", "/* c */ 1", '[{"role": "user", "content": null}]',
    '[{"role": "user", "content": [{"type": "text", "text": "\\ud800"}]}]',
    '{"type": "json_schema", "json_schema": {"name": "n", "schema": {"$ref": "#"}}}', '{"type": "json_object"}',
    '[{"role": "user", "content": ' + "[" * 900 + "]" * 900 + "}]",
    '{"json": {"type": "integer", "minimum": ' + str(2**70) + "}}", '{"choice": []}', '{"regex": "("}',
]  # fmt: skip


def check(answer: httpx.Response, sent: str) -> None:
    assert answer.status_code < 500, (sent[:300], answer.text[:500])
    if answer.status_code >= 400:
        check_refusal(answer)
        assert len(answer.content) < 4000, sent[:300]


def check_refusal(answer: httpx.Response) -> None:
    """In the words of the API that the path belongs to."""
    if answer.request.url.path.startswith("/v1/messages"):
        check_message_error(answer)
    else:
        check_error(answer.json())


def post(http: httpx.Client, path: str, text: str) -> httpx.Response:
    data = text.encode("latin-1") if "\xff" in text else text.encode()
    return http.post(path, content=data, headers={"content-type": "application/json"} | VERSION)


@pytest.mark.parametrize("path", BODIES)
def test_no_value_in_any_place_is_a_500(http: httpx.Client, server: ServerProcess, path: str) -> None:
    body = BODIES[path]
    for name in [*body, "messages", "unknown"]:
        for value in VALUES:
            fields = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in body.items() if key != name]
            check(post(http, path, "{" + ", ".join([*fields, f"{json.dumps(name)}: {value}"]) + "}"), f"{name}={value}")
    for value in VALUES:
        check(post(http, path, value), value)
    assert not any("unexpected" in line for line in server.log)


@pytest.mark.parametrize("prompt", [[2**70], [[2**70]], [2**31], [-1], [True], [1, "a"], [[1, 2.5]], [[]], [None]])
def test_what_is_no_token_id_is_a_400(http: httpx.Client, prompt: list[Any]) -> None:
    answer = http.post("/completions", json={"model": "simulated", "prompt": prompt})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "prompt"
    if type(prompt[0]) is int and len(prompt) == 1:
        scored = http.post("/score", json={"model": "simulated", "query": "q", "label_token_ids": prompt})
        assert scored.status_code == 400 and "label_token_ids" in scored.json()["error"]["param"]


def test_a_request_asks_no_more_than_so_many_prompts(http: httpx.Client) -> None:
    for path, body in (("/completions", {"prompt": ["a"] * 2049}),
                       ("/score", {"query": "q", "items": ["a"] * 2049, "labels": ["0"]})):  # fmt: skip
        answer = http.post(path, json={"model": "simulated"} | body)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "array_above_max_length"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(2**70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "type", "json", "1"]), inner),
    max_leaves=6,
)


@pytest.mark.parametrize("path", BODIES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_no_body_is_a_500(http: httpx.Client, path: str, data: st.DataObject) -> None:
    body = dict(BODIES[path])
    for name in data.draw(st.lists(st.sampled_from([*body, "messages", "label_token_ids"]), max_size=3)):
        body[name] = data.draw(JSON)
    sent = json.dumps(body)
    check(post(http, path, sent), sent)


ODD = [
    "%00",
    "%ff",
    "%0a",
    "%2f..%2f..%2fetc%2fpasswd",
    "..",
    "%ed%a0%80",
    "a" * 10_000,
    "'",
    '"',
    "%25",
    "é",
    " ",
    "-1",
]
PATHS = ["/files/{}", "/files/{}/content", "/responses/{}", "/batches/{}", "/uploads/{}", "/models/{}", "/{}",
         "/files?after={}",
         "/files?limit={}", "/files?order={}", "/files?purpose={}", "/batches?after={}", "/batches?limit={}",
         "/batches?limit=1&limit={}", "/models?{}={}", "/messages/batches/{}", "/messages/batches/{}/results",
         "/messages/{}",
         "/messages/batches?after_id={}", "/messages/batches?before_id={}", "/messages/batches?limit={}"]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "PATCH", "OPTIONS"])
def test_no_path_or_query_is_a_500(http: httpx.Client, method: str) -> None:
    for path in PATHS:
        for odd in [*ODD, str(2**70), "1" * 5000]:
            answer = http.request(method, path.replace("{}", odd), headers=VERSION)
            assert answer.status_code < 500, (path, odd)
            if answer.status_code >= 400 and method != "HEAD":
                check_refusal(answer)
    for odd in ODD:
        for path in (
            "/batches/{}/cancel",
            "/messages/batches/{}/cancel",
            "/uploads/{}/cancel",
            "/uploads/{}/parts",
            "/uploads/{}/complete",
        ):
            assert http.post(path.replace("{}", odd), json={"part_ids": []}).status_code < 500, (path, odd)


RANGES = ["bytes=0-", "bytes=-" + "9" * 50, "bytes=" + "9" * 50 + "-", "bytes=٣-٤", "bytes=0-" + "9" * 90, "bytes=--1",
          "\xff"]  # fmt: skip


def test_no_header_is_a_500(http: httpx.Client) -> None:
    form = {"file": ("a.jsonl", chat_file(1)), "purpose": (None, "batch")}
    file = http.post("/files", files=form).raise_for_status().json()
    for value in RANGES:
        headers = [(b"range", value.encode())]
        assert http.get(f"/files/{file['id']}/content", headers=headers).status_code < 500, value
    for kind in ("application/json", "multipart/form-data; boundary=" + "x" * 400, "multipart/form-data; boundary=é",
                 "multipart/form-data; boundary*=utf-8''%ff", "application/json; charset=utf-16", ";",
                 "\xff"):  # fmt: skip
        for path in ("/files", "/batches", "/uploads/upload_x/parts"):
            for body in (b"", b"--x\r\n", b"\x00" * 100, "{}".encode("utf-16")):
                answer = http.post(path, content=body, headers=[(b"content-type", kind.encode())])
                assert 400 <= answer.status_code < 500, (path, kind, body)
                check_error(answer.json())


FORMS = [
    b'--e\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n\xff\xfe\x00\r\n--e--\r\n',
    b'--e\r\nContent-Disposition: form-data; name="file"; filename="\xff\x00\n"\r\n\r\n{}\r\n--e--\r\n',
    b'--e\r\nContent-Disposition: form-data; name*=utf-8\'\'%ff; filename*=utf-16\'\'%ff\r\n\r\n{}\r\n--e--\r\n',
    b"--e\r\nContent-Disposition: \r\n\r\n{}\r\n--e--\r\n", b"--e\r\n\r\n{}\r\n--e--\r\n", b"--e--\r\n", b"--e",
    b'--e\r\nContent-Disposition: form-data; name="file"\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--e--\r\n',
    b'--e\r\nContent-Disposition: form-data; name="expires_after[seconds]"\r\n\r\n' + b"9" * 5000 + b"\r\n--e\r\n"
    b'Content-Disposition: form-data; name="file"\r\n\r\n{}\r\n--e\r\n'
    b'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--e--\r\n',
]  # fmt: skip


def test_no_form_is_a_500(http: httpx.Client) -> None:
    for form in FORMS:
        answer = http.post("/files", content=form, headers={"content-type": "multipart/form-data; boundary=e"})
        assert 400 <= answer.status_code < 500, form
        check_error(answer.json())


def test_what_was_accepted_can_be_shown_and_ends(http: httpx.Client, server: ServerProcess) -> None:
    """The batches that the tests before made: none is stuck, none breaks a list."""
    for _ in range(300):
        listed = http.get("/batches", params={"limit": 100}).raise_for_status().json()["data"]
        if {batch["status"] for batch in listed} <= {"failed", "completed"}:
            break
        time.sleep(0.1)
    # Completed are those of messages, whose params are their own affair.
    assert {batch["status"] for batch in listed} <= {"failed", "completed"}
    assert {batch["endpoint"] for batch in listed if batch["status"] == "completed"} <= {"/v1/messages"}
    assert not any("unexpected" in line for line in server.log)
