"""A server that answers with the recordings of a real Ollama, and checks that what it is sent looks like them.

No answer is invented: each is a recording as it is, or one with a text, a counter or a flag changed. Delays are the
recorded ones, a hundred times shorter.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

RECORDINGS = Path(__file__).parent / "recordings"
MODEL = "smollm2-135m"
_HASTE = 100
_NANOSECONDS = 1e9

#: What may be sent although no recording has it: names and types of Ollama's api/types.go.
_OPTIONS = {"top_p": float, "frequency_penalty": float, "presence_penalty": float, "stop": list, "num_batch": int,
            "num_ctx": int, "num_gpu": int, "num_thread": int, "temperature": float}  # fmt: skip
_MESSAGES = {"tool_calls": list, "tool_name": str, "tool_call_id": str, "thinking": str, "images": list}
_BODY = {"tools": list, "think": bool, "raw": bool, "keep_alive": int, "truncate": bool, "format": dict,
         "model": str, "input": list, "dimensions": int, "options": dict,
         "logprobs": bool, "top_logprobs": int, "context": list}  # fmt: skip


class Recording(NamedTuple):
    name: str
    method: str
    path: str
    sent: Any
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def but(self, **changes: Any) -> Recording:
        """The same answer with some of its values changed; None takes a field away, ``text`` is the content."""
        answer = self.json
        if "text" in changes:
            text = changes.pop("text")
            answer |= {"message": answer["message"] | {"content": text}} if "message" in answer else {"response": text}
        answer |= changes
        return self._replace(body=json.dumps({k: v for k, v in answer.items() if v is not None}).encode())

    def with_status(self, status: int, error: str, **headers: str) -> Recording:
        """An error answer's form with another status and text, both named by the reference on Ollama."""
        assert "error" in self.json
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = json.dumps({"error": error}).encode()
        return self._replace(status=status, headers=self.headers | named, body=body)

    @property
    def seconds(self) -> float:
        try:
            return self.json.get("total_duration", 0) / _NANOSECONDS
        except ValueError:
            return 0.0


def recording(name: str) -> Recording:
    stored = json.loads((RECORDINGS / f"{name}.json").read_text())
    request, response = stored["request"], stored["response"]
    body = response["text"] if "text" in response else json.dumps(response["json"])
    headers = {"Content-Type": response["content_type"]}
    return Recording(
        name, request["method"], request["path"], request["body"], response["status"], headers, body.encode()
    )


NAMES = sorted(path.stem for path in RECORDINGS.glob("*.json"))


class Seen(NamedTuple):
    path: str
    body: Any


class ReplayServer:
    """Runs in a thread of its own, so that the engine may be in this process or in another.

    Rows are answered by what ``play`` was given, in that order, then by ``usual``. ``answers`` replaces the answers
    of a path. ``seen`` is every request in order, ``wrong`` whatever did not look like a recorded one.
    """

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self.url = ""
        self.seen: list[Seen] = []
        self.wrong: list[str] = []
        self.answers: dict[str, Recording] = {}
        self.usual: Recording | None = None
        #: What /api/ps shows; the recorded model while it is loaded.
        self.running: list[dict[str, Any]] = []
        self.play_now: deque[Recording] = deque()
        #: Set it to answer no row; ``gone`` is set when the client of a held row goes away.
        self.holding = False
        #: Set it to load no model, as while another is held for ever.
        self.holding_loads = False
        #: Whether the model's template leaves a last assistant message open.
        self.leaves_open = False
        self.held, self.gone = threading.Event(), threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ReplayServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """From now on nobody listens at the address."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def play(self, *recordings: Recording) -> None:
        self.play_now.extend(recordings)

    @property
    def rows(self) -> list[Seen]:
        return [each for each in self.seen if _is_row(each)]

    @property
    def loads(self) -> list[Any]:
        """Bodies of the requests that load the model or set its keep_alive."""
        loads = [each.body for each in self.seen if each.path == "/api/chat" and not _is_row(each)]
        return [body for body in loads if not body.get("_debug_render_only")]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        seen = Seen(request.path, json.loads(data) if data else None)
        self.seen.append(seen)
        self.wrong += unlike_recordings(request.method, seen)
        row = _is_row(seen)
        if row and self.holding:
            self.held.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.gone.set()
                raise
        if self.holding_loads and not row and seen.path == "/api/chat":
            await asyncio.Event().wait()
        answer = self._answer(seen, row)
        await asyncio.sleep(answer.seconds / _HASTE)
        if answer.headers["Content-Type"] == "application/x-ndjson":
            return await _streamed(request, answer)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    def _answer(self, seen: Seen, row: bool) -> Recording:
        if seen.path == "/api/embed":
            self._load(seen.body)
            return self.embed(seen.body)
        if row:
            if self.play_now:
                return self.play_now.popleft()
            return self.usual or recording("generate_context" if seen.path == "/api/generate" else "chat_first")
        if seen.path in self.answers:
            return self.answers[seen.path]
        if seen.path == "/api/ps":
            return recording("ps_empty").but(models=self.running)
        if seen.path == "/api/chat" and seen.body.get("_debug_render_only"):
            return self._rendered(seen.body)
        if seen.path == "/api/chat":
            self._load(seen.body)
            return recording("prewarm")
        return recording({"/api/version": "version", "/api/tags": "tags", "/api/show": "show"}[seen.path])

    def embed(self, body: Any) -> Recording:
        """By default as recorded: the model does not."""
        return recording("embed")

    def _rendered(self, body: Any) -> Recording:
        """As the recorded model's template makes it, or one that leaves the last message open."""
        *before, last = (f"<|im_start|>{each['role']}\n{each['content']}" for each in body["messages"])
        end = "" if self.leaves_open else "<|im_end|>\n<|im_start|>assistant\n"
        text = "<|im_end|>\n".join([*before, last]) + end
        return recording("prewarm").but(_debug_info={"rendered_template": text})

    def _load(self, body: Any) -> None:
        expiry = "2319-03-05T05:46:15.23489605Z" if body["keep_alive"] < 0 else "2026-11-23T06:04:18.23489605Z"
        loaded = {"context_length": body["options"]["num_ctx"], "expires_at": expiry}
        self.running = [recording("ps_loaded").json["models"][0] | loaded]


def _is_row(seen: Seen) -> bool:
    if seen.body is not None and seen.body.get("_debug_render_only"):
        return False
    if seen.path == "/api/embed":
        return bool(seen.body["input"])
    return seen.path == "/api/generate" or (seen.path == "/api/chat" and bool(seen.body.get("messages")))


async def _streamed(request: web.Request, answer: Recording) -> web.StreamResponse:
    """Cut where no line ends, as a network may cut it."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    await response.prepare(request)
    for start in range(0, len(answer.body), 100):
        await response.write(answer.body[start : start + 100])
        await asyncio.sleep(0)
    await response.write_eof()
    return response


def unlike_recordings(method: str, seen: Seen) -> list[str]:
    """What in a request has a name or a JSON type that no recording of the same path has."""
    known = [r for r in map(recording, NAMES) if r.path == seen.path and r.method == method]
    if not known:
        return [f"{method} {seen.path} was never recorded"]
    if seen.body is not None and seen.body.get("_debug_render_only"):
        return []  # by api/types.go; never recorded
    if seen.body is None:
        return [] if any(r.sent is None for r in known) else [f"{seen.path} needs a body"]
    # Error recordings show what must not be sent.
    bodies = [r.sent for r in known if isinstance(r.sent, dict) and r.status == 200]
    return list(_unlike(seen.path, seen.body, bodies, _BODY)) + [
        problem
        for name, inner in (("options", _OPTIONS), ("messages", _MESSAGES))
        for value in _listed(seen.body.get(name))
        for problem in _unlike(name, value, [v for b in bodies for v in _listed(b.get(name))], inner)
    ]


def _unlike(where: str, value: dict[str, Any], known: list[dict[str, Any]], also: dict[str, type]) -> Iterator[str]:
    for name, each in value.items():
        types = {type(other[name]) for other in known if name in other} | ({also[name]} if name in also else set())
        if type(each) not in types and not (name == "format" and each == "json"):
            yield f"{where}.{name} = {each!r}: recorded are {types or 'none'}"


def _listed(value: Any) -> list[dict[str, Any]]:
    return [value] if isinstance(value, dict) else value or []
