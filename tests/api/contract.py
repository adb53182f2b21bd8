"""Checks every answer against OpenAI's own description of its API, as it passes through the client."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import openai
from jsonschema import Draft202012Validator

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


def _required_names(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(_required_names, node))
    if not isinstance(node, dict):
        return set()
    required = node.get("required")
    own = set(required) if isinstance(required, list) else set()
    return own.union(*map(_required_names, node.values()))


_REQUIRED = _required_names(_COMPONENTS)


def without_optional_nulls(value: Any) -> Any:
    """OpenAI's own answers hold nulls that its description leaves out; required keys keep theirs."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if item is not None or key in _REQUIRED}
        return {key: without_optional_nulls(item) for key, item in kept.items()}
    return [without_optional_nulls(item) for item in value] if isinstance(value, list) else value


def check_schema(name: str, value: Any) -> None:
    """Assert that ``value`` is a ``name`` of the description; a null is never what is wrong."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": _COMPONENTS}
    errors = Draft202012Validator(schema).iter_errors(without_optional_nulls(value))
    found = [f"{error.json_path}: {error.message}" for error in errors if error.instance is not None]
    assert not found, f"not a {name}: {found[:5]} in {value}"


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


def checked_client(base_url: str, **options: Any) -> openai.OpenAI:
    """The official client, unchanged, with every answer checked on its way in."""
    http = openai.DefaultHttpxClient(event_hooks={"response": [check_answer]})
    return openai.OpenAI(base_url=base_url, api_key="unused", http_client=http, **options)


def _chunk_schema(path: str) -> str:
    return "CreateChatCompletionStreamResponse" if "chat" in path else "CreateCompletionResponse"


def _answer_schema(method: str, path: str) -> str | None:
    for pattern, methods in _ROUTES:
        if pattern.fullmatch(path) and method in methods:
            content = methods[method]["responses"]["200"]["content"]["application/json"]
            return str(content["schema"]["$ref"].rpartition("/")[2])
    return None
