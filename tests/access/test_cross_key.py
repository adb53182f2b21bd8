"""No key sees, changes or can tell of what belongs to another: every route of ``/openapi.json``, and every page.

A new route fails ``test_every_route_is_driven`` until it is told here how to call it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import msgspec
import pytest
from fastapi.routing import APIRoute
from keyed_app import MESSAGE, KeyedApp, Owner, keyed_app, note_queries, noted_queries

from gristmill.access.caller import Role
from gristmill.access.host_rules import AccessRules
from gristmill.access.open_paths import OPEN_PATHS, is_open
from gristmill.api.app import create_app
from gristmill.api.description import document
from gristmill.batches.host import BatchHost
from gristmill.storage.scope import EVERYTHING
from requests_jsonl import CHAT

APP = create_app(cast(BatchHost, None), AccessRules())
OPERATIONS = [
    f"{method.upper()} {path}" for path, methods in document(APP.state.resources)["paths"].items() for method in methods
]


def routes_of(router: Any) -> Iterator[APIRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from routes_of(route.original_router)


PAGES = [
    f"{method} {route.path_format}"
    for route in routes_of(APP)
    if not is_open(route.path_format)
    for method in sorted(route.methods or ())
    if f"{method} {route.path_format}" not in OPERATIONS
]

#: How each kind of object is made, by the name that its id has in paths.
MAKE: dict[str, Callable[[Owner], Any]] = {
    "file_id": Owner.file,
    "batch_id": Owner.batch,
    "upload_id": Owner.upload,
    "message_batch_id": Owner.message_batch,
    "response_id": Owner.response,
    "delivery_id": Owner.delivery,
    "job_id": Owner.scoring,
}
#: What routes with an id take besides, where it is not nothing.
CONTENT: dict[str, dict[str, Any]] = {
    "POST /v1/batches/{batch_id}": {"json": {"priority": 1}},
    "POST /v1/uploads/{upload_id}/parts": {"files": {"data": b"x"}},
    "POST /v1/uploads/{upload_id}/complete": {"json": {"part_ids": ["part_x"]}},
}
#: Other parameters of paths, with a value that would be right.
OTHERS = {"place": "l1"}
#: Pages of which not every object has one.
MADE_FOR = {"GET /batches/{batch_id}/scores": Owner.scores}
#: The kinds of objects that each list has.
LISTS = {
    "GET /v1/files": ("file_id", "after"),
    "GET /v1/batches": ("batch_id", "after"),
    "GET /v1/messages/batches": ("message_batch_id", "after_id"),
    "GET /v1/webhook_deliveries": ("delivery_id", "after"),
}
#: What makes objects, and may name others in its body: each has a test below.
MAKING = {
    "POST /v1/files", "POST /v1/uploads", "POST /v1/batches", "POST /v1/messages/batches", "POST /v1/responses",
}  # fmt: skip
#: Where nothing that belongs to anybody is taken, kept or shown.
NOBODYS = {
    "POST /v1/chat/completions", "POST /v1/completions", "POST /v1/score", "POST /v1/embeddings", "POST /v1/rerank",
    "POST /v1/moderations", "POST /v1/messages", "POST /v1/messages/count_tokens", "GET /v1/models",
    "GET /v1/models/{name}", "GET /health", "GET /ready",
}  # fmt: skip
#: Has series of batches.
METRICS = "GET /metrics"
#: Pages without an id, which list or stream what the visitor has.
LISTING_PAGES = {"GET /", "GET /events", "GET /throughput", "GET /scoring"}
#: Pages that have nothing of anybody, or make something new that is their caller's.
FORMS = {"GET /new", "POST /new", "GET /scoring/new", "POST /scoring/new"}
#: What their owner has not yet, either; that is told in other words.
_SCORING_FILES = ("scores.csv", "report.html", "receipt.json", "truth-wanted.csv", "best.csv", "certificate.json")
NOT_YET = {f"GET /scoring/{{job_id}}/{name}" for name in _SCORING_FILES}


def parameters(name: str) -> list[str]:
    return re.findall(r"\{(\w+)(?::\w+)?\}", name)


def is_of_an_object(name: str) -> bool:
    return name not in NOBODYS and bool(parameters(name))


OF_OBJECTS = [name for name in [*OPERATIONS, *PAGES] if is_of_an_object(name)]


def test_every_route_is_driven() -> None:
    known = {*LISTS, *MAKING, *NOBODYS, METRICS}
    unknown = [name for name in OPERATIONS if not is_of_an_object(name) and name not in known]
    unknown += [name for name in PAGES if not is_of_an_object(name) and name not in LISTING_PAGES | FORMS]
    unknown += [name for name in OF_OBJECTS if not {*parameters(name)} <= {*MAKE, *OTHERS}]
    assert not unknown, f"say in {__file__} how another key's objects could be reached by {unknown}"
    gone = [name for name in [*known, *CONTENT] if name not in OPERATIONS]
    assert not gone, f"no longer there: {gone}"
    assert {name.partition(" ")[2] for name in OPERATIONS} > {"/v1/batches/{batch_id}/cancel"}
    assert any(name.endswith("/batches/{batch_id}") for name in PAGES)


class World(NamedTuple):
    """One key that has everything, one that has nothing, one that sees everything."""

    app: KeyedApp
    owner: httpx.AsyncClient
    other: httpx.AsyncClient
    monitor: httpx.AsyncClient
    admin: httpx.AsyncClient


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    note_queries(monkeypatch)
    async with keyed_app(tmp_path) as app, AsyncExitStack() as stack:
        roles = {"owner": Role.USER, "other": Role.USER, "monitor": Role.READ_ONLY, "admin": Role.ADMIN}
        keys = {name: await app.key(name, role) for name, role in roles.items()}
        clients = {
            name: await stack.enter_async_context(app.client(key, accept="text/html, */*", origin="http://127.0.0.1"))
            for name, key in keys.items()
        }
        yield World(app, **clients)


class Answer(NamedTuple):
    """All that a caller can learn from an answer, and what the server asked its database for it."""

    status: int
    body: str
    headers: dict[str, str]
    queries: list[str]


async def asked(client: httpx.AsyncClient, name: str, ids: dict[str, str]) -> Answer:
    method, _, path = name.partition(" ")
    with noted_queries() as queries:
        answer = await client.request(method, path.format(**ids), **CONTENT.get(name, {}))
    text = answer.text
    for what, value in ids.items():
        text = text.replace(value, f"<{what}>")
    text = re.sub(r"req_[0-9a-f]{32}", "<request>", text)
    dropped = ("date", "x-request-id", "request-id")
    headers = {key: value for key, value in answer.headers.items() if key not in dropped}
    return Answer(answer.status_code, text, headers, queries)


def unknown_like(known: str) -> str:
    """An id of the same form that nobody has."""
    prefix, _, rest = known.rpartition("-" if known.startswith("file-") else "_")
    return known[: len(prefix) + 1] + "".join("0" if each == "f" else "f" for each in rest)


async def snapshot(world: World) -> dict[str, Any]:
    """Everything there is, as an admin sees it."""
    paths = ("/v1/files", "/v1/batches", "/v1/messages/batches")
    found = {path: (await world.admin.get(path)).json()["data"] for path in paths}
    scorings = world.app.app.state.scoring_jobs.store
    found["scorings"] = [msgspec.json.encode(each) for each in scorings.all(EVERYTHING)]
    for kept in world.app.app.state.background_responses._kept.values():
        found[kept.response.id] = kept.key_id
    uploads = world.app.host.storage.metadata.uploads
    return found | {each: (await uploads.get(each), await uploads.parts(each)) for each in world.app.uploads}


@pytest.mark.parametrize("name", OF_OBJECTS)
async def test_an_id_of_another_key_is_one_that_nobody_has(world: World, name: str) -> None:
    made = Owner(world.app, world.owner)
    make = {param: MADE_FOR.get(name, MAKE[param]) for param in parameters(name) if param in MAKE}
    theirs = {param: await make[param](made) if param in make else OTHERS[param] for param in parameters(name)}
    nobodys = {param: unknown_like(value) if param in MAKE else value for param, value in theirs.items()}
    before = await snapshot(world)

    of_another = await asked(world.other, name, theirs)
    assert of_another == await asked(world.other, name, nobodys)
    assert of_another.status == 404 and of_another.queries
    reading = name.startswith("GET ")
    seen_by_monitor = await asked(world.monitor, name, theirs)
    assert seen_by_monitor == await asked(world.monitor, name, nobodys)
    assert seen_by_monitor.status == (404 if reading else 403)
    assert await snapshot(world) == before

    # The one who has it is answered otherwise, so that this test could fail.
    own = await asked(world.owner, name, theirs)
    assert own.body != of_another.body and (name in NOT_YET or own.status not in (401, 403, 404))


@pytest.mark.parametrize("name", LISTS)
async def test_lists_have_ones_own(world: World, name: str) -> None:
    kind, cursor = LISTS[name]
    path = name.partition(" ")[2]
    theirs = await MAKE[kind](Owner(world.app, world.owner))
    assert theirs in (await world.owner.get(path)).text and theirs in (await world.admin.get(path)).text
    for client in (world.other, world.monitor):
        assert (await client.get(path)).json()["data"] == []
        answers = []
        for each in (theirs, unknown_like(theirs)):
            with noted_queries() as queries:
                found = await client.get(path, params={cursor: each})
            answers.append((found.status_code, found.text.replace(each, "<id>").split("req_")[0], queries))
        assert answers[0] == answers[1] and answers[0][0] == 400
    mine = await MAKE[kind](Owner(world.app, world.other))
    assert [each["id"] for each in (await world.other.get(path)).json()["data"]][-1] != theirs
    assert theirs not in (await world.other.get(path)).text and mine not in (await world.owner.get(path)).text


@pytest.mark.parametrize("page", sorted(LISTING_PAGES & {*PAGES}))
async def test_pages_and_metrics_tell_of_ones_own(world: World, page: str) -> None:
    theirs = await Owner(world.app, world.owner).batch(ended=False)
    paused = await world.owner.post(f"/v1/batches/{theirs}/pause")
    assert paused.status_code == 200
    path = page.partition(" ")[2]
    scoring = await Owner(world.app, world.owner).scoring()
    told = {client: (await client.get(path)).text for client in world[1:]}
    for client in (world.other, world.monitor):
        assert theirs not in told[client] and scoring not in told[client]
    if page != "GET /throughput":
        shown = scoring if page == "GET /scoring" else theirs
        assert shown in told[world.owner] and shown in told[world.admin]
    for client, told in ((world.owner, True), (world.admin, True), (world.other, False), (world.monitor, False)):
        answer = await client.get("/metrics")
        assert answer.status_code == 200 and (theirs in answer.text) is told


async def test_a_batch_of_anothers_file_is_a_batch_of_none(world: World) -> None:
    file = await Owner(world.app, world.owner).file()
    errors = []
    for each in (file, unknown_like(file)):
        body = {"input_file_id": each, "endpoint": CHAT, "completion_window": "24h"}
        batch = (await world.other.post("/v1/batches", json=body)).json()
        while batch["status"] != "failed":
            batch = (await world.other.get(f"/v1/batches/{batch['id']}")).json()
            assert batch["status"] in ("validating", "failed")
        errors.append(str(batch["errors"]).replace(each, "<file>"))
        assert batch["request_counts"]["total"] == 0
    assert errors[0] == errors[1] and "Cannot find file" in errors[0]
    # An admin may read it.
    body["input_file_id"] = file
    batch = (await world.admin.post("/v1/batches", json=body)).json()
    while batch["status"] != "completed":
        batch = (await world.admin.get(f"/v1/batches/{batch['id']}")).json()
        assert batch["status"] != "failed"


async def test_parts_of_anothers_upload_are_none(world: World) -> None:
    owner, other = Owner(world.app, world.owner), Owner(world.app, world.other)
    theirs, mine = await owner.upload(), await other.upload()
    part = await owner.part(theirs)
    answers = []
    for each in (part, unknown_like(part)):
        answer = await world.other.post(f"/v1/uploads/{mine}/complete", json={"part_ids": [each]})
        answers.append((answer.status_code, answer.text.replace(each, "<part>")))
    assert answers[0] == answers[1] and answers[0][0] == 400
    assert (await world.owner.post(f"/v1/uploads/{theirs}/complete", json={"part_ids": [part]})).status_code == 200


async def test_items_of_anothers_response_are_none(world: World) -> None:
    made = (await world.owner.post("/v1/responses", json={"model": "simulated", "input": "Hi"})).json()
    item = made["output"][0]["id"]
    answers = []
    for client, each in ((world.owner, item), (world.other, item), (world.other, unknown_like(item))):
        body = {
            "model": "simulated",
            "input": [{"type": "item_reference", "id": each}, {"role": "user", "content": "?"}],
        }
        answer = await client.post("/v1/responses", json=body)
        answers.append((answer.status_code, re.sub(r"[a-z]+_[0-9a-f]{16,}|\d{10}", "*", answer.text)))
    assert answers[0][0] == 200 and answers[1] == answers[2] and answers[1][0] == 404
    body = {"model": "simulated", "input": "Hi", "previous_response_id": made["id"]}
    assert (await world.other.post("/v1/responses", json=body)).status_code == 400


@pytest.mark.parametrize("path", ["/v1/files", "/v1/uploads", "/v1/batches", "/v1/messages/batches"])
async def test_an_idempotency_key_is_each_callers_own(world: World, path: str) -> None:
    def content(name: str) -> dict[str, Any]:
        request = {"custom_id": name, "params": MESSAGE}
        bodies: dict[str, dict[str, Any]] = {
            "/v1/files": {"data": {"purpose": "user_data"}, "files": {"file": (name, b"x")}},
            "/v1/uploads": {"json": {"bytes": 1, "filename": name, "mime_type": "m", "purpose": "user_data"}},
            "/v1/batches": {"json": {"input_file_id": name, "endpoint": CHAT, "completion_window": "24h"}},
            "/v1/messages/batches": {"json": {"requests": [request]}},
        }
        return bodies[path]

    headers = {"idempotency-key": "again"}
    made = [await client.post(path, headers=headers, **content("one")) for client in (world.owner, world.other)]
    made += [await world.admin.post(path, headers=headers, **content("two"))]
    assert [each.status_code for each in made] == [200, 200, 200]
    assert len({each.json()["id"] for each in made}) == 3
    again = await world.owner.post(path, headers=headers, **content("one"))
    assert again.json()["id"] == made[0].json()["id"]


@pytest.mark.parametrize("name", [*OPERATIONS, *PAGES])
async def test_without_a_key_nothing_is_answered(world: World, name: str) -> None:
    method, _, path = name.partition(" ")
    revoked = await world.app.key("gone")
    await world.app.gate.keyring.revoke("gone")
    answers = []
    for key in (None, "sk-gristmill-0123456789ab-" + "0" * 48, revoked):
        async with world.app.client(key) as client:
            with noted_queries() as queries:
                answer = await client.request(method, re.sub(r"\{[^}]+\}", "x", path))
            answers.append((answer, queries))
    if path in OPEN_PATHS:
        assert {answer.status_code for answer, _ in answers} == {200}
        return
    for answer, _ in answers:
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
        error = answer.json()["error"]
        if path.startswith("/v1/messages"):
            assert answer.json()["type"] == "error" and error["type"] == "authentication_error"
        else:
            assert error["type"] == "invalid_request_error" and error["code"] == "invalid_api_key"
    # One that never was and one that was revoked are looked up alike.
    assert answers[1][1] == answers[2][1] == ["SqlAccessKeys.get.<locals>.<lambda>"]
