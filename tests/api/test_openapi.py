"""``/openapi.json`` and what is really answered are the same: every call, body, answer and error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from anthropic_client import ENTRY, entries, user
from contract import named_events, stream_chunks
from jsonschema import Draft202012Validator

from gristmill.access.host_rules import AccessRules
from gristmill.api.app import create_app
from gristmill.api.description import document
from gristmill.batches.host import BatchHost
from requests_jsonl import CHAT, chat_file, chat_line, jsonl
from server_process import ServerProcess

DESCRIPTION = document(create_app(cast(BatchHost, None), AccessRules()).state.resources)
PATHS: dict[str, dict[str, Any]] = DESCRIPTION["paths"]
OPERATIONS = {f"{method.upper()} {path}": each for path, methods in PATHS.items() for method, each in methods.items()}
BODIES: dict[str, dict[str, Any]] = {
    "POST /v1/chat/completions": {"model": "simulated", "messages": [{"role": "user", "content": "Hi"}]},
    "POST /v1/completions": {"model": "simulated", "prompt": "Hi"},
    "POST /v1/responses": {"model": "simulated", "input": "Hi"},
    "POST /v1/score": {"model": "simulated", "query": "q", "items": ["a"], "labels": ["0", "1"]},
    "POST /v1/messages": ENTRY | {"messages": user("Hi")},
    "POST /v1/messages/count_tokens": {"model": "simulated", "messages": user("Hi")},
    "POST /v1/messages/batches": {"requests": entries(1)},
    "POST /v1/embeddings": {"model": "simulated", "input": "Hi"},
    "POST /v1/batches": {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"},
    "POST /v1/batches/{batch_id}": {"priority": 1},
    "POST /v1/uploads": {"bytes": 1, "filename": "f", "mime_type": "m", "purpose": "user_data"},
    "POST /v1/uploads/{upload_id}/complete": {"part_ids": []},
}
ORDERS = ("cancel", "pause", "resume", "retry", "resend")
#: The simulated engine has none to pass them on to; tests/engines/openai_compatible has.
SERVERS_OWN = ("/v1/rerank", "/v1/moderations")
ASK = BODIES["POST /v1/chat/completions"]


def strict(node: Any) -> Any:
    """A schema by which an object has no keys but those that are described."""
    if isinstance(node, list):
        return [strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    closed = {"additionalProperties": False} if isinstance(node.get("properties"), dict) else {}
    return closed | {key: strict(value) for key, value in node.items()}


COMPONENTS = strict(DESCRIPTION["components"])


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(strict(schema) | {"components": COMPONENTS})


def operation_of(method: str, path: str) -> str:
    for name in OPERATIONS:
        wanted, _, template = name.partition(" ")
        last = r".+" if template.startswith("/v1/models") else r"[^/]+"
        if wanted == method and re.fullmatch(re.sub(r"\{\w+\}", last, template), path):
            return name
    raise AssertionError(f"{method} {path} is not described")


class Checked:
    """Sends requests, and checks each answer against the description of its call."""

    def __init__(self, root: str) -> None:
        self.seen: set[tuple[str, int]] = set()
        headers = {"anthropic-version": "2023-06-01"}
        self._http = httpx.Client(base_url=root, timeout=60, headers=headers, event_hooks={"response": [self.check]})

    def __call__(self, method: str, path: str, **content: Any) -> httpx.Response:
        return self._http.request(method, path, **content)

    def check(self, response: httpx.Response) -> None:
        response.read()
        name = operation_of(response.request.method, response.request.url.path)
        described = OPERATIONS[name]["responses"]
        assert str(response.status_code) in described, f"{name} answered {response.status_code}: {response.text}"
        kind = response.headers["content-type"].partition(";")[0]
        schema = described[str(response.status_code)]["content"][kind]["schema"]
        values: list[Any] = [response.text]
        if kind == "application/json":
            values = [response.json()]
        elif kind == "text/event-stream":
            read = named_events if response.text.startswith("event: ") else stream_chunks
            values = read(response.text)
        elif kind == "application/x-jsonl":
            values = [json.loads(line) for line in response.text.splitlines()]
        for value in values:
            errors = [f"{error.json_path}: {error.message}" for error in validator(schema).iter_errors(value)]
            assert not errors, f"{name} answered {value}, not as described: {errors}"
        self.seen.add((name, response.status_code))


@pytest.fixture
def ask(server: ServerProcess) -> Iterator[Checked]:
    yield Checked(server.base_url.removesuffix("/v1"))


def test_the_description_is_served_and_whole(server: ServerProcess) -> None:
    served = httpx.get(f"{server.base_url.removesuffix('/v1')}/openapi.json")
    assert served.json() == json.loads(json.dumps(DESCRIPTION))
    assert DESCRIPTION["openapi"].startswith("3.1")
    for reference in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(DESCRIPTION)):
        assert reference in DESCRIPTION["components"]["schemas"]
    for schema in DESCRIPTION["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert len({each["operationId"] for each in OPERATIONS.values()}) == len(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_call_is_described_with_its_body_answer_and_errors(name: str) -> None:
    method, _, path = name.partition(" ")
    operation = OPERATIONS[name]
    assert operation["summary"] and operation["tags"]
    placed = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
    assert placed == set(re.findall(r"\{(\w+)\}", path))
    assert operation["responses"]["200"]["content"]
    unavailable = "529" if path.startswith("/v1/messages") else "503"
    assert {"403", "500", unavailable, "default"} <= set(operation["responses"])
    # What is only told to happen has no body.
    assert ("requestBody" in operation) == (method == "POST" and path.rpartition("/")[2] not in ORDERS)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        Draft202012Validator.check_schema(content["schema"])


def test_every_call_answers_as_it_is_described(ask: Checked) -> None:
    files = {"file": ("a.jsonl", chat_file(3) + jsonl([chat_line("bad", max_tokens=-1)]))}
    fields = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = ask("POST", "/v1/files", data=fields, files=files).json()["id"]
    given = {"metadata": {"a": "b"}, "output_expires_after": {"anchor": "created_at", "seconds": 3600}}
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    batch = ask("POST", "/v1/batches", json=body | given).json()["id"]
    # Nobody is there: the name is reserved for that.
    webhook = {"webhook": {"url": "https://receiver.invalid/"}}
    told = ask("POST", "/v1/batches", json=body | webhook | {"input_file_id": "file-x"}).json()["id"]
    failing = ask("POST", "/v1/batches", json=body | {"input_file_id": "file-x"}).json()["id"]
    # So many rows that it has not ended before it is paused and cancelled.
    many = ask("POST", "/v1/files", data=fields, files={"file": ("b.jsonl", chat_file(5_000))}).json()["id"]
    stopped = ask("POST", "/v1/batches", json=body | {"input_file_id": many}).json()["id"]
    ask("POST", f"/v1/batches/{stopped}/retry")
    ask("POST", f"/v1/batches/{stopped}/pause")
    ask("POST", f"/v1/batches/{stopped}", json={"priority": 3})
    ask("POST", f"/v1/batches/{stopped}/resume")
    ask("POST", f"/v1/batches/{stopped}/cancel")
    while {ask("GET", f"/v1/batches/{each}").json()["status"] for each in (batch, failing, told)} != {
        "completed",
        "failed",
    }:
        pass
    ask("POST", f"/v1/batches/{batch}/retry")
    for kind in "output", "error":
        ask("GET", f"/v1/batches/{batch}/results", params={"kind": kind})
    ask("GET", f"/v1/batches/{batch}/results", params={"after": "row-0"})
    ask("GET", f"/v1/batches/{batch}/results", params={"after": "row-none"})
    output = ask("GET", f"/v1/batches/{batch}").json()["output_file_id"]
    ask("GET", "/v1/batches", params={"limit": 2})
    ask("GET", f"/v1/files/{output}/content")
    ask("GET", f"/v1/files/{output}/content", headers={"Range": "bytes=0-9"})
    ask("GET", f"/v1/files/{file}")
    ask("GET", "/v1/files", params={"purpose": "batch", "order": "asc"})
    for _ in range(2):
        upload = ask("POST", "/v1/uploads", json=BODIES["POST /v1/uploads"]).json()["id"]
        part = ask("POST", f"/v1/uploads/{upload}/parts", files={"data": b"x"}).json()["id"]
    ask("POST", f"/v1/uploads/{upload}/complete", json={"part_ids": [part]})
    ask("POST", f"/v1/uploads/{ask('POST', '/v1/uploads', json=BODIES['POST /v1/uploads']).json()['id']}/cancel")
    usage = {"stream_options": {"include_usage": True}}
    for path, name in (("/v1/chat/completions", "messages"), ("/v1/completions", "prompt")):
        asked = {key: value for key, value in BODIES[f"POST {path}"].items() if key in ("model", name)}
        ask("POST", path, json=asked | {"n": 2})
        ask("POST", path, json=asked | {"stream": True} | usage)
    for given in (
        {},
        {"stream": True},
        {"include": ["message.input_image.image_url"], "text": {"verbosity": "medium"}},
    ):
        ask("POST", "/v1/responses", json=BODIES["POST /v1/responses"] | given)
    made = ask("POST", "/v1/responses", json=BODIES["POST /v1/responses"] | {"background": True}).json()["id"]
    ask("GET", f"/v1/responses/{made}")
    ask("POST", f"/v1/responses/{made}/cancel")
    ask("GET", f"/v1/responses/{made}", params={"stream": "true"})
    ask("DELETE", f"/v1/responses/{made}")
    ask("POST", "/v1/score", json=BODIES["POST /v1/score"])
    message = BODIES["POST /v1/messages"]
    ask("POST", "/v1/messages", json=message)
    ask("POST", "/v1/messages", json=message | {"stream": True})
    ask("POST", "/v1/messages/count_tokens", json=BODIES["POST /v1/messages/count_tokens"])
    bad = {"custom_id": "bad", "params": message | {"max_tokens": 0}}
    messages = ask("POST", "/v1/messages/batches", json={"requests": [*entries(1), bad]}).json()["id"]
    ask("POST", f"/v1/messages/batches/{messages}/cancel")
    while ask("GET", f"/v1/messages/batches/{messages}").json()["processing_status"] != "ended":
        pass
    ask("GET", "/v1/messages/batches")
    ask("GET", f"/v1/messages/batches/{messages}/results")
    ask("DELETE", f"/v1/messages/batches/{messages}")
    for form in ("float", "base64"):
        ask("POST", "/v1/embeddings", json=BODIES["POST /v1/embeddings"] | {"encoding_format": form})
    for path in SERVERS_OWN:
        ask("POST", path, json={"model": "simulated", "query": "q", "documents": ["d"], "input": "i"})
    delivery = ask("GET", "/v1/webhook_deliveries", params={"batch_id": told, "limit": 1}).json()["data"][0]["id"]
    ask("GET", f"/v1/webhook_deliveries/{delivery}")
    ask("POST", f"/v1/webhook_deliveries/{delivery}/resend")
    ask("GET", "/v1/models")
    ask("GET", "/v1/models/simulated")
    for path in ("/health", "/ready", "/metrics"):
        ask("GET", path)

    ask("POST", f"/v1/batches/{batch}/cancel")
    ask("GET", f"/v1/files/{output}/content", headers={"Range": "bytes=9999999-"})
    ask("DELETE", f"/v1/files/{file}")
    ask("POST", f"/v1/uploads/{upload}/cancel")
    assert {name for name, status in ask.seen if status == 200} == set(OPERATIONS) - {f"POST {p}" for p in SERVERS_OWN}
    assert {name for name, status in ask.seen if status == 404} >= {f"POST {path}" for path in SERVERS_OWN}
    assert {("POST /v1/batches/{batch_id}/cancel", 409), ("GET /v1/files/{file_id}/content", 416)} <= ask.seen


@pytest.mark.parametrize("name", OPERATIONS)
def test_errors_are_answered_as_they_are_described(ask: Checked, name: str) -> None:
    method, _, path = name.partition(" ")
    address = re.sub(r"\{\w+\}", "x", path)
    assert ask(method, address, headers={"Host": "evil.example"}).status_code == 403
    if path != address:
        body = BODIES.get(name)
        form = {"files": {"data": b"x"}} if path.endswith("/parts") else {}
        assert ask(method, address, **({"json": body} if body else form)).status_code == 404
    kinds = OPERATIONS[name].get("requestBody", {}).get("content", {})
    if kinds:
        assert ask(method, address, content=b"{").status_code in (400, 404, 415)
        assert ask(method, address, content=b"{", headers={"Content-Type": next(iter(kinds))}).status_code in (400, 404)
    for parameter in OPERATIONS[name]["parameters"]:
        if parameter["in"] == "query" and parameter["schema"] != {"type": "string"}:
            assert ask(method, address, params={parameter["name"]: "odd"}).status_code == 400


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_refused_where_its_description_forbids_it(ask: Checked, name: str) -> None:
    method, _, path = name.partition(" ")
    schema = OPERATIONS[name]["requestBody"]["content"]["application/json"]["schema"]
    described = DESCRIPTION["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    fitting = Draft202012Validator(schema | {"components": DESCRIPTION["components"]})
    good = BODIES[name]
    assert fitting.is_valid(good)
    bad = [{key: value for key, value in good.items() if key != missing} for missing in described["required"]]
    bad += [good | {"zzz": 1}]
    odd: tuple[Any, ...] = (None, True, -(10**6), 0.5, "odd", [], [1], {}, {"odd": 1})
    bad += [good | {key: value} for key in described["properties"] for value in odd]
    refused = 0
    for body in bad:
        answer = ask(method, path.replace("{upload_id}", "x"), json=body)
        if not fitting.is_valid(body):
            refused += 1
            assert answer.status_code == 400, (body, answer.text)
        else:
            assert answer.status_code < 500, (body, answer.text)
    assert refused > len(described["required"])


def test_an_unavailable_engine_is_answered_as_it_is_described(tmp_path: Path) -> None:
    options = ("--engine-option", "fail_on=Hi", "--engine-option", "failure_kind=unavailable")
    with ServerProcess(tmp_path / "data", *options) as server:
        ask = Checked(server.base_url.removesuffix("/v1"))
        assert ask("POST", "/v1/chat/completions", json=ASK).status_code == 503
        assert ask("POST", "/v1/messages", json=BODIES["POST /v1/messages"]).status_code == 529
