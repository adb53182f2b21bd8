"""One server of the pool: what is known of it, how it is, and how it is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import aiohttp

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.health import ServerHealth, after_failure, after_push_back, usable
from gristmill.engines.http import HttpClient, lines
from gristmill.engines.openai_compatible.answers import ChunkCollector
from gristmill.engines.openai_compatible.body_fields import BodyField, with_fields
from gristmill.engines.openai_compatible.failures import failure, path_missing
from gristmill.engines.openai_compatible.forwarding import (
    MAX_ANSWER_BYTES,
    ForwardedEvents,
    answer_too_large,
    events,
    read_answer,
)
from gristmill.engines.openai_compatible.probe import MODELS_PATH, ServerFacts, probe
from gristmill.engines.openai_compatible.translation import ServerKind, body, forwarded_body, path_of
from gristmill.engines.protocol import Completion, ForwardedAnswer, ForwardRequest, OnDelta, OnEvent, Request
from gristmill.telemetry.log import get_logger
from gristmill.user_error import UserError
from gristmill.wire.paths import PROMPT_FIELDS

log = get_logger(__name__)

T = TypeVar("T")

_QUICK = 10.0


class PoolServer:
    """Make it inside a running event loop; ``close`` it. ``facts`` are None until it was first reached.

    ``body_fields`` are set in every request. ``socket``: as for ``HttpClient``.
    """

    def __init__(
        self, url: str, headers: dict[str, str], body_fields: Sequence[BodyField] = (), socket: str | None = None
    ) -> None:
        self._http = HttpClient("the server", url, headers, MODELS_PATH, socket)
        self._body_fields = body_fields
        #: The address for messages.
        self.url = self._http.url
        self.facts: ServerFacts | None = None
        self.in_flight = 0
        self._health = ServerHealth()

    async def close(self) -> None:
        await self._http.close()

    def usable(self) -> bool:
        return usable(self._health, self.in_flight, time.monotonic())

    @property
    def load(self) -> int:
        return self.in_flight + self._health.failures

    def serves(self, request: Request | ForwardRequest) -> bool:
        """Whether it may; of one that was never reached that is not known."""
        path = request.path if isinstance(request, ForwardRequest) else path_of(request)
        return self.facts is None or (request.model in self.facts.models and path in self.facts.endpoints)

    async def reach(self, model: str | None, timeout: float) -> ServerFacts:
        """Find out what the server is, unless that is known."""
        if self.facts is None:
            self.in_flight += 1
            try:
                self.facts = await probe(self._http, self._ask, model, timeout)
                self._http.alive_path = self.facts.alive_path
            except EngineError as error:
                self._note(error)
                raise
            except UserError as error:
                self._failed(ErrorKind.UNAVAILABLE, str(error), gone=True)
                raise
            finally:
                self.in_flight -= 1
        return self.facts

    async def complete(self, request: Request, on_delta: OnDelta | None) -> Completion:
        """Raises EngineError. Whatever comes of it changes the endpoint's health."""
        assert self.facts is not None
        return await self._watched(self._ask(request, self.facts.kind, on_delta))

    async def forward(self, request: ForwardRequest, on_event: OnEvent | None) -> ForwardedAnswer:
        """As ``complete``."""
        assert self.facts is not None
        return await self._watched(self._pass_on(request, self.facts.kind, on_event))

    async def _watched(self, asked: Awaitable[T]) -> T:
        self.in_flight += 1
        try:
            answer = await asked
        except EngineError as error:
            self._note(error)
            raise
        except asyncio.CancelledError:
            # Most likely the caller's time-out: a server that hangs must not be asked for ever.
            self._failed(ErrorKind.TIMEOUT, "it did not answer in time", gone=False)
            raise
        finally:
            self.in_flight -= 1
        self._answered()
        return answer

    async def _pass_on(self, request: ForwardRequest, kind: ServerKind, on_event: OnEvent | None) -> ForwardedAnswer:
        data = with_fields(forwarded_body(request, kind), self._body_fields)
        async with self._http.exchange(request.path, data) as response:
            if response.status != 200:
                raise await self._refusal(response, request.path)
            if not request.stream or on_event is None:
                return read_answer(request.path, await _whole(response))
            reader = ForwardedEvents()
            async for event in events(response.content.iter_any()):
                reader.read(event)
                on_event(event)
            return reader.finish()

    async def _ask(self, request: Request, kind: ServerKind, on_delta: OnDelta | None = None) -> Completion:
        collector = ChunkCollector(request, on_delta)
        data = with_fields(body(request, kind, stream=on_delta is not None), self._body_fields)
        async with self._http.exchange(path_of(request), data) as response:
            if response.status != 200:
                raise await self._refusal(response, path_of(request))
            if on_delta is None:
                collector.add(await response.read())
            else:
                async for line in lines(response.content.iter_any()):
                    collector.add_line(line)
        return collector.finish()

    async def _refusal(self, response: aiohttp.ClientResponse, path: str) -> EngineError:
        """What an answer that is not 200 means."""
        content = await _whole(response)
        error = failure(response.status, content, response.headers.get("Retry-After"))
        if error.code == "context_length_exceeded":
            error.param = PROMPT_FIELDS.get(path, error.param)
        if response.status == 404 and error.kind is ErrorKind.UNAVAILABLE and await self._lists_models():
            # The path is missing, and not the server: to wait for it would be to wait for ever.
            return path_missing(path, content)
        return error

    async def _lists_models(self) -> bool:
        try:
            reply = await self._http.fetch(MODELS_PATH, timeout=_QUICK)
        except EngineError:
            return False
        return reply.status == 200

    def _note(self, error: EngineError) -> None:
        if error.crashed is not None:
            error.crashed = self.url
        if error.kind is ErrorKind.INVALID_REQUEST:
            self._answered()
        elif error.kind is ErrorKind.OVERLOADED:
            self._health = after_push_back(self._health, error.retry_after, time.monotonic())
        else:
            gone = error.kind is ErrorKind.UNAVAILABLE or error.crashed is not None
            self._failed(error.kind, error.message, gone)

    def _answered(self) -> None:
        if self._health.trips:
            log.info("server answers again", server=self.url)
        self._health = ServerHealth()

    def _failed(self, kind: ErrorKind, reason: str, gone: bool) -> None:
        before, self._health = self._health, after_failure(self._health, gone, time.monotonic())
        if self._health.trips > before.trips == 0:
            log.warning("server is left alone for a while", server=self.url, because=kind.value, content=reason)


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body, unless it is far larger than answers are."""
    if (response.content_length or 0) <= MAX_ANSWER_BYTES and "Content-Length" in response.headers:
        return await response.read()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise answer_too_large()
    return bytes(body)
