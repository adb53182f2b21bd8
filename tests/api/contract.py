"""Checks every answer against OpenAI's own description of its API, as it passes through the client."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import openai
from jsonschema import Draft202012Validator, ValidationError

_DESCRIPTION = json.loads(Path(__file__).with_name("openai-subset.openapi.json").read_text())


def _plain_json_schema(node: Any) -> Any:
    """OpenAPI's ``nullable`` said in JSON Schema, and references to where the components will be."""
    if isinstance(node, list):
        return [_plain_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain_json_schema(value) for key, value in node.items() if key not in ("nullable", "discriminator")}
    if node.get("nullable") is True:
        return {"anyOf": [plain, {"type": "null"}]}
    return plain


_COMPONENTS = _plain_json_schema(_DESCRIPTION["components"])


def _path_pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", path))


_ROUTES = [(_path_pattern(path), methods) for path, methods in _DESCRIPTION["paths"].items()]


def without_nulls(value: Any) -> Any:
    """OpenAI's description leaves many nulls out that its answers have; a null is never what is checked."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def check_schema(name: str, value: Any) -> None:
    """Assert that ``value`` is a ``name`` of the description."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": _COMPONENTS}
    errors = list(_validator(schema).iter_errors(without_nulls(value)))
    found = [f"{error.json_path}: {error.message}" for error in errors if not _only_misses_allowed_nulls(error, value)]
    assert not found, f"not a {name}: {found[:5]} in {value}"


def _only_misses_allowed_nulls(error: ValidationError, value: Any) -> bool:
    """Whether what is missing was there as a null that the description allows, and only dropped by us."""
    if error.validator != "required":
        return False
    for step in error.absolute_path:
        value = value[step]
    missing = [key for key in error.validator_value if key not in error.instance]
    properties = error.schema["properties"]
    return all(key in value and _allows_null(properties[key]) for key in missing)


def _allows_null(schema: Any) -> bool:
    return _validator(schema | {"components": _COMPONENTS}).is_valid(None)


def check_error(body: Any) -> None:
    """An error body has all four keys, null or not."""
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
    assert isinstance(body["error"]["message"], str) and isinstance(body["error"]["type"], str), body
    for key in ("param", "code"):
        assert body["error"][key] is None or isinstance(body["error"][key], str), body


def check_answer(response: Any) -> None:
    """An event hook: the answer to any call has the shape that the description gives for its method and path."""
    response.read()
    assert response.headers["x-request-id"].startswith("req_")
    path = response.request.url.path.removeprefix("/v1")
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/json"
        check_error(response.json())
        return
    if path.endswith("/content"):
        return
    schema = _answer_schema(response.request.method.lower(), path)
    kind = response.headers["content-type"].partition(";")[0]
    if kind == "text/event-stream":
        for chunk in stream_chunks(response.text):
            check_schema(_chunk_schema(path), _with_end(chunk))
    elif schema is not None:
        assert kind == "application/json"
        check_schema(schema, response.json())


def _with_end(chunk: Any) -> Any:
    """A text chunk in mid-stream has a null ``finish_reason``; the description knows only whole text completions."""
    if chunk["object"] != "text_completion":
        return chunk
    ended = [choice | {"finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
    return chunk | {"choices": ended}


def stream_chunks(text: str) -> list[Any]:
    events = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def named_events(text: str) -> list[Any]:
    """Events that are named by the type in their data."""
    events = [event.split("\n") for event in text.removesuffix("\n\n").split("\n\n")]
    found = []
    for name, data in events:
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def checked_client(base_url: str, **options: Any) -> openai.OpenAI:
    """The official client, unchanged, with every answer checked on its way in."""
    http = openai.DefaultHttpxClient(event_hooks={"response": [check_answer]})
    return openai.OpenAI(base_url=base_url, api_key="unused", http_client=http, **options)


def _validator(schema: Any) -> Draft202012Validator:
    return Draft202012Validator(schema)


def _chunk_schema(path: str) -> str:
    return "CreateChatCompletionStreamResponse" if "chat" in path else "CreateCompletionResponse"


def _answer_schema(method: str, path: str) -> str | None:
    for pattern, methods in _ROUTES:
        if pattern.fullmatch(path) and method in methods:
            content = methods[method]["responses"]["200"]["content"]["application/json"]
            return str(content["schema"]["$ref"].rpartition("/")[2])
    return None
