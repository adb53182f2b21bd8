"""A server that asks for keys, within the test's process: asked over ASGI, and its look-ups in the store noted."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gristmill.access.caller import Role
from gristmill.access.gate import Gate
from gristmill.access.host_rules import AccessRules
from gristmill.api.app import create_app
from gristmill.batches.host import BatchHost, HostSettings
from gristmill.engines.registry import EngineSettings
from gristmill.storage.open import StorageSettings
from gristmill.storage.scope import KeyLimits
from gristmill.storage.sql.sqlite import SqliteDatabase
from gristmill.wire.paths import SCORE
from requests_jsonl import CHAT, chat_file, jsonl

ROOT = "http://127.0.0.1"
MESSAGE = {"model": "simulated", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}

_noted: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("noted", default=None)


@contextlib.contextmanager
def noted_queries() -> Iterator[list[str]]:
    """What is asked of the database on behalf of this task, by the name of the method that asks."""
    found: list[str] = []
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


def note_queries(patch: Any) -> None:
    """``patch`` is pytest's monkeypatch."""
    for name in ("read", "write"):
        asked = getattr(SqliteDatabase, name)

        def noting(self: SqliteDatabase, work: Any, *rest: Any, asked: Any = asked, **options: Any) -> Any:
            found = _noted.get()
            if found is not None:
                found.append(work.__qualname__)
            return asked(self, work, *rest, **options)

        patch.setattr(SqliteDatabase, name, noting)


class KeyedApp:
    def __init__(self, app: FastAPI, host: BatchHost, gate: Gate) -> None:
        self.app = app
        self.host = host
        self.gate = gate
        #: Ids of those that were made: there is no list of them.
        self.uploads: list[str] = []

    async def key(self, name: str, role: Role = Role.USER, *limits: int | None, made_for: str | None = None) -> str:
        return await self.gate.keyring.add(name, role, KeyLimits(*limits), made_for)

    @contextlib.asynccontextmanager
    async def client(self, key: str | None = None, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        headers = {"anthropic-version": "2023-06-01"} | {name.replace("_", "-"): headers[name] for name in headers}
        transport = httpx.ASGITransport(_without_rest_of_streams(self.app), client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url=ROOT, headers=headers, timeout=60) as made:
            yield made


def _without_rest_of_streams(app: ASGIApp) -> ASGIApp:
    """A stream of events ends with its first one: it would go on for ever."""

    async def cut(scope: Scope, receive: Receive, send: Send) -> None:
        streams = False

        async def until_first_event(message: Message) -> None:
            nonlocal streams
            if message["type"] == "http.response.start":
                streams = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
            elif streams and message.get("body"):
                answering.cancel()
                message = {**message, "more_body": False}
            await send(message)

        answering = asyncio.ensure_future(app(scope, receive, until_first_event))
        with contextlib.suppress(asyncio.CancelledError):
            await answering

    return cut


@contextlib.asynccontextmanager
async def keyed_app(folder: Path, *origins: str) -> AsyncIterator[KeyedApp]:
    host = BatchHost(HostSettings(StorageSettings(folder / "data"), EngineSettings("simulated"), stop_grace=0))
    await host.start()
    try:
        gate = Gate(host.storage.metadata)
        app = create_app(host, AccessRules.of("127.0.0.1", origins=origins), gate)
        try:
            yield KeyedApp(app, host, gate)
        finally:
            await app.state.background_responses.close()
            await app.state.scoring_jobs.close()
    finally:
        await host.stop()


class Owner:
    """Makes objects with one key."""

    def __init__(self, app: KeyedApp, client: httpx.AsyncClient) -> None:
        self._app = app
        self._client = client

    async def _made(self, path: str, **content: Any) -> dict[str, Any]:
        answer = await self._client.post(path, **content)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def file(self) -> str:
        made = await self._made("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", chat_file(2))})
        return str(made["id"])

    async def batch(self, ended: bool = True) -> str:
        body = {"input_file_id": await self.file(), "endpoint": CHAT, "completion_window": "24h"}
        made = await self._made("/v1/batches", json=body)
        return await self._ended(f"/v1/batches/{made['id']}", "status", "completed") if ended else str(made["id"])

    async def scores(self) -> str:
        body = {"model": "simulated", "query": "q", "items": ["a"], "labels": ["0", "1"]}
        line = {"custom_id": "a", "method": "POST", "url": SCORE, "body": body}
        form = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", jsonl([line]))}}
        made = {"input_file_id": (await self._made("/v1/files", **form))["id"], "endpoint": SCORE}
        batch = await self._made("/v1/batches", json=made | {"completion_window": "24h"})
        return await self._ended(f"/v1/batches/{batch['id']}", "status", "completed")

    async def scoring(self) -> str:
        """One that has not begun."""
        answer = await self._client.post("/scoring/new", files={"table": ("a.csv", b"name,points\na,1\nb,2\n")})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"].rpartition("/")[2]

    async def delivery(self) -> str:
        body = {"input_file_id": await self.file(), "endpoint": CHAT, "completion_window": "24h"}
        webhook = {"url": "https://webhook.invalid/"}
        batch = await self._made("/v1/batches", json=body | {"webhook": webhook})
        while not (found := (await self._client.get(f"/v1/webhook_deliveries?batch_id={batch['id']}")).json()["data"]):
            await asyncio.sleep(0)
        return str(next(each["id"] for each in found if each["url"] is not None))

    async def upload(self) -> str:
        body = {"bytes": 1, "filename": "f", "mime_type": "m", "purpose": "user_data"}
        made = str((await self._made("/v1/uploads", json=body))["id"])
        self._app.uploads.append(made)
        return made

    async def part(self, upload: str) -> str:
        return str((await self._made(f"/v1/uploads/{upload}/parts", files={"data": b"x"}))["id"])

    async def message_batch(self) -> str:
        made = await self._made("/v1/messages/batches", json={"requests": [{"custom_id": "a", "params": MESSAGE}]})
        return await self._ended(f"/v1/messages/batches/{made['id']}", "processing_status", "ended")

    async def response(self) -> str:
        made = await self._made("/v1/responses", json={"model": "simulated", "input": "Hi", "background": True})
        return str(made["id"])

    async def _ended(self, path: str, field: str, status: str) -> str:
        while (found := (await self._client.get(path)).json())[field] != status:
            await asyncio.sleep(0)
        return str(found["id"])
