"""A stand-in for a server, for what a real one cannot be made to say on demand: statuses, cuts, silence.

Bodies are recordings of real servers (``recordings.json``), or say in the test where they come from.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from gristmill.engines.protocol import Request
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest


class Recording(NamedTuple):
    name: str
    server: str
    status: int
    body: bytes


def _load() -> list[Recording]:
    stored = json.loads(Path(__file__).with_name("recordings.json").read_text())
    return [Recording(each["name"], each["server"], each["status"], _bytes(each["body"])) for each in stored]


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


RECORDINGS = _load()


def recording(name: str, server: str = "llama.cpp") -> Recording:
    return next(each for each in RECORDINGS if each.name == name and each.server.startswith(server))


def chat(text: str = "Is water wet?", **parameters: Any) -> Request:
    return ChatCompletionRequest(messages=[Message(role="user", content=text)], model="smollm2", **parameters)


def complete(**parameters: Any) -> Request:
    return CompletionRequest(prompt="Water is", model="smollm2", **parameters)


class Play(NamedTuple):
    """An answer. ``cut`` closes the connection after that many bytes."""

    status: int
    body: bytes
    headers: dict[str, str] = {}  # noqa: RUF012 - never written to
    cut: int | None = None


def play(recorded: Recording, **headers: str) -> Play:
    return Play(recorded.status, recorded.body, {name.replace("_", "-"): value for name, value in headers.items()})


class StandIn:
    """Looks like llama.cpp's server with the recorded model; runs in a thread of its own.

    ``rows`` answers the requests after the probes: a function of the number of the request, from 0.
    """

    def __init__(self, rows: Callable[[int], Play] | None = None) -> None:
        self.rows = rows or (lambda _: play(recording("chat")))
        #: The endpoints it has.
        self.paths: tuple[str, ...] = ("/v1/chat/completions", "/v1/completions")
        self.asked = 0
        #: How long an answer to a row takes.
        self.seconds = 0.0
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.models = play(recording("models"))
        self.health = Play(200, b'{"status":"ok"}')
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> StandIn:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.read())
        before, answer = self.asked, self._answer(request.path, self.bodies[-1])
        if self.asked > before:
            await asyncio.sleep(self.seconds)
        if answer.cut is None:
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        response = web.StreamResponse(status=answer.status)
        await response.prepare(request)
        await response.write(answer.body[: answer.cut])
        assert request.transport is not None
        request.transport.abort()
        return response

    def _answer(self, path: str, data: bytes) -> Play:
        if path == "/v1/models":
            return self.models
        if data and path not in self.paths:
            return play(recording("no_path"))
        if data and path == "/v1/embeddings" and b'"water"' in data:
            return play(recording("embeddings"))
        if data and not any(field in data for field in (b'"messages"', b'"prompt"', b'"input"')):
            return play(recording("nothing-asked"))
        if path == "/props":
            return Play(200, json.dumps({"total_slots": 2}).encode())
        if path == "/health":
            return self.health
        if b"water wet" in data and (probe := _probe(data)) is not None:
            return probe
        self.asked += 1
        return self.rows(self.asked - 1)


def _probe(data: bytes) -> Play | None:
    body = json.loads(data)
    if body.get("temperature") != 0.0 or len(body["messages"]) != 1:
        return None
    if "response_format" in body:
        return play(recording("schema"))
    return play(recording("logprobs" if "logprobs" in body else "chat"))
