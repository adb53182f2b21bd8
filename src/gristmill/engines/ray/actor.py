"""A replica: an actor on the cluster that holds an engine. It knows nothing that may not be lost.

Its methods run side by side on one event loop. A client opens a session, sends groups of requests and takes the answers
as they come. What it has not taken when the actor ends is asked again by the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import traceback
from collections.abc import Coroutine
from typing import Any

import msgspec

import gristmill
from gristmill.engines.answer_frames import Decoded
from gristmill.engines.errors import EngineError, ErrorKind, interrupted, unavailable
from gristmill.engines.isolation import NotYet
from gristmill.engines.protocol import EmbeddingRequest, Engine, LabelRequest
from gristmill.engines.ray import messages
from gristmill.engines.ray.admission import Admission, Taken
from gristmill.engines.ray.messages import (
    Alone,
    AskFingerprint,
    Event,
    Fingerprint,
    FromReplica,
    NotAnswered,
    NotBegun,
    ReplicaFacts,
    SubmitForward,
)
from gristmill.engines.ray.options import ReplicaSettings
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.engines.request_frames import Cancel
from gristmill.user_error import UserError

#: How long a call that takes answers waits for the first; each that returns shows that the actor does not hang.
_TAKE_SECONDS = 1.0
#: How long it waits for more of them, seconds: a call costs as much as many answers.
_GATHER_SECONDS = 0.002
#: Seconds that an engine has to end in, before its actor is ended.
END_SECONDS = 10.0
#: Seconds after which a client that has taken nothing is gone.
_CLIENT_GONE = 60.0


class Hello(msgspec.Struct, frozen=True):
    """``incarnation`` is another one each time that Ray has started the actor."""

    version: str
    incarnation: str


class Replica:
    """Of one pool; ``settings`` as JSON. Seconds: after ``stale`` without a sign of its client a session is over, after
    ``abandoned`` without a client this ends by itself."""

    def __init__(self, settings: bytes, stale: float, abandoned: float) -> None:
        self._settings = msgspec.json.decode(settings, type=ReplicaSettings)
        self._stale = stale
        self._abandoned: float | None = abandoned
        self._incarnation = os.urandom(8).hex()
        self._engine: Engine | None = None
        self._starting = asyncio.Lock()
        self._sessions: dict[str, _Session] = {}
        self._admission = Admission(stale)
        self._used = time.monotonic()
        self._watching: asyncio.Task[None] | None = None

    async def hello(self) -> bytes:
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return msgspec.json.encode(Hello(gristmill.__version__, self._incarnation))

    async def start(self) -> tuple[bytes, str]:
        """Its facts; or empty, and why the engine cannot start, as a sentence."""
        async with self._starting:
            self._used = time.monotonic()
            if self._engine is None:
                try:
                    settings = self._settings
                    engine = _engine_of(settings)
                    await engine.start()
                except UserError as error:
                    return b"", str(error)
                except Exception as error:
                    traceback.print_exception(error, limit=-3)
                    return b"", f"{type(error).__name__}: {error}"
                self._engine = engine
            self._used = time.monotonic()
            facts = ReplicaFacts(
                gristmill.__version__, os.uname().nodename, self._engine.models, self._engine.capabilities
            )
        return msgspec.msgpack.encode(facts), ""

    async def open(self, client: str, session: str, keep: bool) -> None:
        """One session a client: its earlier one is over, and what that was asking is cancelled."""
        assert self._engine is not None
        if (before := self._sessions.pop(client, None)) is not None:
            before.close()
        if keep:
            self._abandoned = None
        self._sessions[client] = _Session(client, session, self._engine, self._admission, self._stale)

    async def submit(self, client: str, session: str, group: bytes) -> None:
        self._session(client, session).submit(group)

    async def take(self, client: str, session: str) -> bytes:
        """Answers; empty where none came for a while."""
        self._used = time.monotonic()
        return await self._session(client, session).take()

    async def leave(self, client: str) -> bool:
        """Whether nobody else uses it."""
        if (session := self._sessions.pop(client, None)) is not None:
            session.close()
        return not await self.users()

    async def users(self) -> int:
        self._forget_gone()
        return len(self._sessions)

    async def end(self) -> None:
        """Let the engine stop its own processes; whoever calls this ends the actor next."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.stop()

    def _session(self, client: str, session: str) -> _Session:
        found = self._sessions.get(client)
        if found is None or found.name != session:
            raise LookupError(f"session {session} is over")
        return found

    def _forget_gone(self) -> None:
        for client, session in list(self._sessions.items()):
            if time.monotonic() - session.taken > _CLIENT_GONE:
                del self._sessions[client]
                session.close()

    async def _watch(self) -> None:
        """Nobody may come back for it: a command that was killed has stopped nothing."""
        while True:
            await asyncio.sleep(min(5.0, self._abandoned or 5.0))
            self._forget_gone()
            abandoned = self._abandoned is not None and time.monotonic() - self._used > self._abandoned
            if abandoned and not self._starting.locked() and not self._sessions:
                import ray

                # An engine that does not stop must not keep its GPU.
                await asyncio.wait({asyncio.create_task(self.end())}, timeout=END_SECONDS)
                ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def _engine_of(settings: ReplicaSettings) -> Engine:
    """Raises UserError."""
    return create_engine(
        EngineSettings(settings.engine, settings.model, settings.url, settings.options, settings.row_tokens)
    )


class _Session:
    """One client's requests, from ``open`` to the next. A client takes answers all the time. Where that stops for
    ``stale`` seconds, it or this process has hung, or the network between them, and what it asked may have been
    answered elsewhere since: what arrives then, or waited meanwhile, is not begun, and the session is over."""

    def __init__(self, client: str, name: str, engine: Engine, admission: Admission, stale: float) -> None:
        self.name = name
        self._client = client
        self._admission = admission
        self._stale = stale
        self._over = False
        #: When the client last took answers.
        self.taken = time.monotonic()
        self._engine = engine
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._outbox: list[tuple[int, bytes]] = []
        self._filled = asyncio.Event()

    def close(self) -> None:
        self._over = True
        for task in self._tasks.values():
            task.cancel()

    def submit(self, group: bytes) -> None:
        self._check()
        for number, data in messages.decode_group(group):
            try:
                message = messages.decode_to_replica(data)
                alone = isinstance(message, Alone)
                if isinstance(message, Alone):
                    message = messages.decode_to_replica(message.asked)
            except (msgspec.DecodeError, RecursionError, ValueError) as error:
                reason = f"The request cannot be read: {error}."
                self._put(NotAnswered(number, ErrorKind.INVALID_REQUEST, reason, 400, code="invalid_value"))
                continue
            match message:
                case Cancel():
                    if (task := self._tasks.get(number)) is not None:
                        task.cancel()
                case AskFingerprint():
                    self._run(number, self._tell_fingerprint(number))
                case _:
                    self._run(number, self._answer(number, message, alone))

    async def take(self) -> bytes:
        self._check()
        self.taken = time.monotonic()
        if not self._outbox:
            self._filled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TAKE_SECONDS):
                    await self._filled.wait()
                await asyncio.sleep(_GATHER_SECONDS)
        self._check()
        self.taken = time.monotonic()
        taken, self._outbox = self._outbox, []
        return messages.encode_group(taken) if taken else b""

    @property
    def over(self) -> bool:
        if not self._over and time.monotonic() - self.taken > self._stale:
            self.close()
        return self._over

    def _check(self) -> None:
        if self.over:
            raise LookupError(f"session {self.name} is over")

    def _put(self, message: FromReplica) -> None:
        try:
            encoded = messages.encode(message)
        except (ValueError, OverflowError, RecursionError) as error:
            failed = NotAnswered(message.id, ErrorKind.INTERRUPTED, f"The answer cannot be sent: {error}.")
            encoded = messages.encode(failed)
        self._outbox.append(encoded)
        self._filled.set()

    def _run(self, number: int, work: Coroutine[Any, Any, FromReplica]) -> None:
        task = asyncio.create_task(self._put_outcome(number, work))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _put_outcome(self, number: int, work: Coroutine[Any, Any, FromReplica]) -> None:
        try:
            self._put(await work)
        except (Taken, NotYet) as error:
            self._put(NotBegun(number, isinstance(error, Taken)))
        except EngineError as error:
            self._put(NotAnswered.of(number, error))
        except Exception as error:
            traceback.print_exception(error, limit=-3)
            self._put(NotAnswered.of(number, interrupted(f"The {self._engine.name} engine failed: {error!r}.")))

    async def _tell_fingerprint(self, number: int) -> FromReplica:
        return Fingerprint(number, await self._engine.fingerprint())

    async def _answer(self, number: int, message: Any, alone: bool) -> FromReplica:
        async def begin() -> FromReplica:
            if self.over:
                raise unavailable(f"Session {self.name} is over.")
            return await self._ask_engine(number, message)

        return await self._admission.answer(self._client, alone, begin)

    async def _ask_engine(self, number: int, message: Any) -> FromReplica:
        request, interactive = messages.request_of(message), message.interactive
        engine: Any = self._engine
        if isinstance(message, SubmitForward):
            on_event = (lambda event: self._put(Event(number, event))) if message.stream else None
            return messages.answered(number, await engine.forward(request, on_event, interactive=interactive))
        match request:
            case LabelRequest():
                return messages.answered(number, await engine.score(request, interactive=interactive))
            case EmbeddingRequest():
                return messages.answered(number, await engine.embed(request, interactive=interactive))
        on_delta = (lambda delta: self._put(Decoded(number, delta))) if message.stream else None
        return messages.answered(number, await engine.complete(request, on_delta, interactive=interactive))
