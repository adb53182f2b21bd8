"""Requests that Schemathesis makes of ``/openapi.json``, brought nearer to those that do something.

Of what it makes up alone, most is refused for a model or an object that does not exist. Here three of four name what
does: ids that the server has given before, the model that it has, a file that can be run.

For a long run, against a server of your own that may be filled with rubbish, with keys or without:

    gristmill serve --engine simulated --data /tmp/rubbish --keys
    export GRISTMILL_API_KEY=... SCHEMATHESIS_HOOKS=generated_requests PYTHONPATH=tests/api
    st run http://127.0.0.1:4080/openapi.json \\
        --checks not_a_server_error,content_type_conformance,response_schema_conformance,status_is_named \\
        --phases coverage,fuzzing --max-examples 200 --max-time 10m
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections import defaultdict, deque
from typing import Any

import schemathesis

_ID = re.compile(r"(file|batch|upload|part|msgbatch|resp)[-_][A-Za-z0-9]+")
_KIND = {"message_batch": "msgbatch", "response": "resp"}
_ROWS = b"".join(
    b'{"custom_id": "%d", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "simulated", "messages": '
    b'[{"role": "user", "content": "Hi"}]}}\n' % number
    for number in range(3)
)
_KNOWN = {"model": "simulated", "endpoint": "/v1/chat/completions", "completion_window": "24h", "purpose": "batch"}

#: Of an access key, where the server asks for one: most requests carry it.
key = os.environ.get("GRISTMILL_API_KEY")
#: The last ones that were given, by kind.
given: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=20))


def learn(answer: Any) -> None:
    """The ids of an answer's own objects, not of others' that it names."""
    for each in [answer, *(answer.get("data") or [])] if isinstance(answer, dict) else []:
        found = _ID.fullmatch(str(each.get("id"))) if isinstance(each, dict) else None
        if found and found[0] not in given[found[1]]:
            given[found[1]].append(found[0])


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: Any) -> None:
    """As in OpenAI's description, the schema of an event stream is that of each event's data, for which OpenAPI 3.1 has
    no words; Schemathesis takes it for the event's. ``test_openapi`` compares them."""
    for operation in (each for methods in raw_schema["paths"].values() for each in methods.values()):
        for answer in operation["responses"].values():
            answer["content"].get("text/event-stream", {}).pop("schema", None)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    chance = _Chance(case)
    if key is not None and chance.number() % 8:
        case.headers["authorization"] = f"Bearer {key}"
    for name, value in case.path_parameters.items():
        kind = name.removesuffix("_id")
        case.path_parameters[name] = chance.instead(value, _KNOWN.get(name) or _an_id(_KIND.get(kind, kind), chance))
    if isinstance(case.body, dict):
        if case.path == "/v1/responses" and chance.number() % 4:
            # Only those can be asked for later.
            case.body["background"] = True
        for name, value in case.body.items():
            case.body[name] = chance.instead(value, _body_value(name, value, chance))


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    if response.status_code == 200 and response.headers.get("content-type", [""])[0].startswith("application/json"):
        learn(response.json())


@schemathesis.check
def status_is_named(context: Any, response: Any, case: Any) -> None:
    """Not only by "any other error", which is for what HTTP itself refuses."""
    named = set(case.operation.definition.raw["responses"]) | {"405"}
    assert str(response.status_code) in named, f"{response.status_code} is not among {sorted(named)}: {response.text}"


class _Chance:
    """The same for the same request, so that Hypothesis can repeat it."""

    def __init__(self, case: Any) -> None:
        self._state = zlib.crc32(repr((case.operation.label, case.path_parameters, case.query, case.body)).encode())

    def number(self) -> int:
        self._state = zlib.crc32(b"next", self._state)
        return self._state

    def instead(self, value: Any, other: Any) -> Any:
        return other if other is not None and self.number() % 4 else value


def _an_id(kind: str, chance: _Chance) -> str | None:
    known = given[kind]
    return known[chance.number() % len(known)] if known else None


def _body_value(name: str, value: Any, chance: _Chance) -> Any:
    match name:
        case "input_file_id":
            return _an_id("file", chance)
        case "part_ids":
            return [_an_id("part", chance)]
        case "file" | "data":
            return _ROWS
        case "requests" if isinstance(value, list):
            return json.loads(re.sub(r'"model": "(?:[^"\\]|\\.)*"', '"model": "simulated"', json.dumps(value)))
    return _KNOWN.get(name)
