"""The dispatcher: keeps an engine's window full, and retries what is worth retrying."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import cast, overload

from gristmill.dispatch.aliases import R, by_own_name
from gristmill.dispatch.asking import Ask, Listen, ask_engine, cost
from gristmill.dispatch.attempts import Attempts
from gristmill.dispatch.fair_share import INTERACTIVE, Flow
from gristmill.dispatch.outage import Outage
from gristmill.dispatch.places import Places
from gristmill.dispatch.prefix_leader import PrefixLeaders
from gristmill.dispatch.retry import RetryPolicy
from gristmill.dispatch.stop import Stop
from gristmill.dispatch.suspects import Suspects
from gristmill.dispatch.tuner import Tuner
from gristmill.engines.errors import EngineError, ErrorKind, interrupted, unavailable
from gristmill.engines.isolation import NotYet
from gristmill.engines.prompt_parts import prompt_parts, shared_prefix
from gristmill.engines.protocol import (
    AnyAnswer,
    AnyRequest,
    Completion,
    EmbeddingRequest,
    Embeddings,
    Engine,
    ForwardedAnswer,
    ForwardRequest,
    LabelRequest,
    LabelScores,
    OnDelta,
    OnEvent,
    Request,
    SelfMonitoring,
    TellsWhatItWaitsFor,
    passes_through,
)
from gristmill.tasks import is_being_cancelled
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import REQUEST_SECONDS

log = get_logger(__name__)

#: To be raised when our own engines begin to answer the same request differently, and kept answers are not to be used
#: again. 2: schemas are closed when decoding, tools are called, text completions end after 16 tokens.
_ANSWER_RULES = 2


class Dispatcher:
    """One engine's requests, from all batches and callers.

    ``aliases`` are further names of its models. What is asked for by one is answered under the model's own name.

    At most ``window`` requests are in flight, and besides them the interactive ones that the engine puts first. Batches
    that run at the same time share the engine by tokens, each a ``Flow`` of its own. ``timeout`` is in seconds, for one
    attempt.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        window: int | None = None,
        timeout: float = 600.0,
        policy: RetryPolicy | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.engine = engine
        self._aliases = aliases or {}
        #: The most requests that can ever be in flight; as many workers are worth having.
        self.window = window or engine.capabilities.slots
        self.outage = Outage()
        self._timeout = timeout
        self._policy = policy or RetryPolicy()
        self._tuner = None if window or engine.capabilities.slots_known else Tuner(self.window)
        self._leaders = PrefixLeaders() if engine.capabilities.leader_first else None
        self._places = Places(engine, self._tuner.window.limit if self._tuner else self.window)
        self._suspects = Suspects(isolated=self._places.isolates)
        self._answers = 0

    @property
    def models(self) -> dict[str, str]:
        """The names that a request may ask for, each with the model's own."""
        return {name: name for name in self.engine.models} | dict(self._aliases)

    async def fingerprint(self) -> str | None:
        """The engine's, and what else an answer depends on: an alias may stand for another model tomorrow."""
        found = await self.engine.fingerprint()
        return None if found is None else f"{found} rules={_ANSWER_RULES} {sorted(self._aliases.items())}"

    def resolved(self, request: R) -> R:
        """Asking for the model by its own name. Raises EngineError for a name that is nobody's."""
        # Without aliases the engine knows its names.
        return by_own_name(request, self.models) if self._aliases else request

    @property
    def limit(self) -> int:
        """How many requests may be in flight now: ``window``, or what has been found to pay so far."""
        return self._places.limit

    @property
    def finds_limit(self) -> bool:
        """Whether ``limit`` is still being found out, from how the engine answers."""
        return self._tuner is not None

    @property
    def down_reason(self) -> str | None:
        """Why the engine cannot answer now; None while it can. An engine that does not watch itself is known only by
        the last request."""
        return self.engine.down_reason if isinstance(self.engine, SelfMonitoring) else self.outage.reason

    @property
    def waiting_for(self) -> str | None:
        """What holds up everything: why the engine is away, or what it waits for; None where nothing does."""
        return self.outage.reason or self._engine_waits_for

    @property
    def _engine_waits_for(self) -> str | None:
        return self.engine.waiting_for if isinstance(self.engine, TellsWhatItWaitsFor) else None

    @property
    def in_flight(self) -> int:
        """Requests that the engine has at this moment."""
        return self._places.in_flight

    @property
    def endpoints(self) -> frozenset[str]:
        """The paths of the endpoints whose requests the engine answers itself."""
        return self.engine.capabilities.endpoints

    def engine_serves(self, path: str) -> bool:
        return path in self.endpoints

    @property
    def passes_through(self) -> bool:
        """Whether the engine takes requests as they came."""
        return passes_through(self.engine)

    def forwards(self, path: str) -> bool:
        """Whether it does so with requests of this endpoint."""
        return self.passes_through and self.engine_serves(path)

    @overload
    async def ask_once(self, request: Request, listen: OnDelta | None = None) -> Completion: ...
    @overload
    async def ask_once(self, request: ForwardRequest, listen: OnEvent | None = None) -> ForwardedAnswer: ...
    @overload
    async def ask_once(self, request: LabelRequest) -> LabelScores: ...
    @overload
    async def ask_once(self, request: EmbeddingRequest) -> Embeddings: ...

    async def ask_once(self, request: AnyRequest, listen: Listen | None = None) -> AnyAnswer:
        """One attempt, for a caller who is waiting; every failure is raised as EngineError.

        ``listen`` is told what the engine says as it says it.
        """
        request = self.resolved(request)
        async with self._places.interactive():
            return await self._attempt(lambda: ask_engine(self.engine, request, listen, interactive=True))

    @overload
    async def ask(self, request: Request, stop: Stop, flow: Flow = ...) -> Completion: ...
    @overload
    async def ask(self, request: ForwardRequest, stop: Stop, flow: Flow = ...) -> ForwardedAnswer: ...
    @overload
    async def ask(self, request: LabelRequest, stop: Stop, flow: Flow = ...) -> LabelScores: ...
    @overload
    async def ask(self, request: EmbeddingRequest, stop: Stop, flow: Flow = ...) -> Embeddings: ...

    async def ask(self, request: AnyRequest, stop: Stop, flow: Flow = INTERACTIVE) -> AnyAnswer:
        """Answer a row however long the engine is away. Raises EngineError once no retry is worth it.

        Raises Stopped if ``stop`` is requested while the row is waiting; an attempt under way is left to finish.
        """
        request = self.resolved(request)
        return await self._persist(
            lambda alone: ask_engine(self.engine, request, alone=alone), stop, flow, self._prefix(request)
        )

    def asker(self, stop: Stop, flow: Flow = INTERACTIVE) -> Ask:
        """``ask`` for the rows of one batch."""
        return cast(Ask, lambda request: self.ask(request, stop, flow))

    def forget(self, flow: str) -> None:
        """No more requests of this flow will come."""
        self._places.forget(flow)

    def _prefix(self, request: AnyRequest) -> int | None:
        """What the row waits for a leader of, if for anything."""
        return None if self._leaders is None else shared_prefix(request.model, prompt_parts(request))

    async def _attempt(self, ask: Callable[[], Awaitable[AnyAnswer]]) -> AnyAnswer:
        """Ask the engine from a place in the window. Raises EngineError, and NotYet."""
        answers_before = self._answers
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await ask()
        except NotYet:
            raise
        except EngineError as error:
            REQUEST_SECONDS[error.kind].observe(time.perf_counter() - began)
            if error.kind is ErrorKind.UNAVAILABLE:
                self.outage.report_failure(error.message)
            elif error.kind in (ErrorKind.OVERLOADED, ErrorKind.TIMEOUT):
                self._tune(pushed_back=True)
            lost = error.crashed is not None and not self._places.isolates
            if self._leaders is not None and (error.kind is ErrorKind.UNAVAILABLE or lost):
                self._leaders.forget()
            raise
        except TimeoutError:
            REQUEST_SECONDS[ErrorKind.TIMEOUT].observe(time.perf_counter() - began)
            if (reason := self._engine_waits_for) is not None:
                self.outage.report_failure(f"waiting for {reason}")
                message = f"The {self.engine.name} engine did not begin with the request: it waits for {reason}."
                raise unavailable(message) from None
            self._tune(pushed_back=True)
            # An engine that answered nobody meanwhile hangs, and any request in flight may be why.
            hangs = self.engine.name if self._answers == answers_before else None
            message = "The underlying call to the model timed out."
            raise EngineError(ErrorKind.TIMEOUT, message, status=504, crashed=hangs) from None
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            REQUEST_SECONDS[ErrorKind.INTERRUPTED].observe(time.perf_counter() - began)
            # A defect of an engine must cost one row, not the batch; nor may a log that cannot be written.
            with contextlib.suppress(Exception):
                log.error("engine failed unexpectedly", engine=self.engine.name, exc_info=error)
            raise interrupted(f"The {self.engine.name} engine failed: {error!r}.") from error
        REQUEST_SECONDS["answered"].observe(time.perf_counter() - began)
        self._answers += 1
        self.outage.report_success()
        self._tune(pushed_back=False, tokens=cost(answer))
        return answer

    def _tune(self, pushed_back: bool, tokens: float = 0.0) -> None:
        if self._tuner is not None:
            self._tuner.note(pushed_back, self._places.full, tokens)
            self._places.resize(self._tuner.window.limit)

    async def _persist(
        self,
        ask: Callable[[bool], Awaitable[AnyAnswer]],
        stop: Stop,
        flow: Flow,
        prefix: int | None,
    ) -> AnyAnswer:
        attempts = Attempts(self._suspects, self._policy)
        try:
            while True:
                await attempts.turn(stop)
                try:
                    if (answer := await self._take_turn(ask, stop, flow, prefix, attempts)) is not None:
                        return answer[0]
                    await stop.unless(self.outage.wait())
                    if not stop.trusted:
                        await stop.unless(stop.wait_trusted())
                    continue
                except EngineError as error:
                    retry = attempts.failed(error, self._answers)
                    if retry is None:
                        raise attempts.explained(error) from error
                if retry.delay > 0:
                    await stop.unless(asyncio.sleep(retry.delay))
        finally:
            attempts.leave()

    async def _take_turn(
        self,
        ask: Callable[[bool], Awaitable[AnyAnswer]],
        stop: Stop,
        flow: Flow,
        prefix: int | None,
        attempts: Attempts,
    ) -> tuple[AnyAnswer] | None:
        """One attempt, when it is the row's turn; None where by then the engine is away, ``stop`` is requested, or
        somebody else may be at work."""
        leads = False
        if prefix is not None and self._leaders is not None and not attempts.alone:
            leads = await self._leaders.turn(prefix, stop)
        answer: tuple[AnyAnswer] | None = None
        try:
            alone = attempts.alone
            async with self._places.of_batch(flow, alone, stop) as place:
                # Looked at only here: a lot may have happened while the row waited for its place, or its server.
                while answer is None and not self.outage.open and not stop.requested and stop.trusted:
                    attempts.begin()
                    with contextlib.suppress(NotYet):
                        answer = (await self._attempt(lambda: ask(alone and self._places.isolates)),)
                        place.cost = cost(answer[0])
        finally:
            if leads and self._leaders is not None and prefix is not None:
                self._leaders.release(prefix, computed=answer is not None)
        return answer
