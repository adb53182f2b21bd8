"""The openai_compatible engine: a pool of servers as one engine, as the rest of Gristmill sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from gristmill.engines.errors import EngineError, ErrorKind, unavailable, unknown_model, unsupported_endpoint
from gristmill.engines.openai_compatible.body_fields import pinned_values
from gristmill.engines.openai_compatible.endpoint import PoolServer
from gristmill.engines.openai_compatible.options import OpenAICompatibleOptions, base_urls
from gristmill.engines.openai_compatible.probe import ServerFacts
from gristmill.engines.openai_compatible.routing import (
    Candidate,
    RecentPrefixes,
    by_prefix,
    least_busy,
    prefix_of,
)
from gristmill.engines.openai_compatible.translation import PARAMETERS, ServerKind, path_of
from gristmill.engines.parameters import check_parameters
from gristmill.engines.protocol import (
    Capabilities,
    Completion,
    ForwardedAnswer,
    ForwardRequest,
    OnDelta,
    OnEvent,
    Request,
)
from gristmill.telemetry.log import get_logger
from gristmill.user_error import NotNow, UserError

__all__ = ["OpenAICompatibleEngine", "OpenAICompatibleOptions"]

log = get_logger(__name__)

T = TypeVar("T")

#: The most requests in flight to a server that does not tell its slots: vLLM's own default limit.
_MOST_IN_FLIGHT = 256
#: Servers with one prefix cache for all requests. llama.cpp's slots keep a prompt each, so that siblings of a leader
#: would gain nothing; another Gristmill sees to it itself.
_SHARED_CACHE = frozenset({ServerKind.VLLM, ServerKind.SGLANG, ServerKind.OTHER})
#: Seconds a row waits for a server that was away at the start, to learn what it is.
_REACH_AGAIN = 30.0


class OpenAICompatibleEngine:
    """Servers of the same model, or models. Rows of one that goes away are answered by the others. ``socket``: as for
    ``HttpClient``."""

    name = "openai_compatible"

    def __init__(
        self,
        options: OpenAICompatibleOptions,
        url: str | None = None,
        model: str | None = None,
        socket: str | None = None,
    ) -> None:
        self._socket = socket
        self._options = options
        self._urls = base_urls(url)
        self._model = model
        self._endpoints: list[PoolServer] = []
        self._recent = RecentPrefixes()
        self.models: tuple[str, ...] = ()
        self.capabilities = Capabilities(1, PARAMETERS, slots_known=False)

    async def fingerprint(self) -> None:
        """These servers name their models, but do not tell which weights those are."""

    async def start(self) -> None:
        """Find out what the servers can do. Those that are away may come later, unless it is all of them.

        Raises UserError saying what to do.
        """
        headers = self._options.headers()
        self._endpoints = [PoolServer(url, headers, self._options.body_fields, self._socket) for url in self._urls]
        reach = (each.reach(self._model, self._options.start_timeout) for each in self._endpoints)
        try:
            results = await asyncio.gather(*reach, return_exceptions=True)
            self._settle(results)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        endpoints, self._endpoints = self._endpoints, []
        for endpoint in endpoints:
            await endpoint.close()

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        self._check_model(request.model)
        check_parameters(request, self.capabilities, self.name)
        said = _Said(on_delta) if on_delta is not None else None
        return await self._asked(request, lambda endpoint: endpoint.complete(request, said), said)

    async def forward(
        self, request: ForwardRequest, on_event: OnEvent | None = None, *, interactive: bool = False
    ) -> ForwardedAnswer:
        self._check_model(request.model)
        said = _Said(on_event) if on_event is not None else None
        return await self._asked(request, lambda endpoint: endpoint.forward(request, said), said)

    def _check_model(self, model: str) -> None:
        if not self._endpoints:
            raise unavailable("The openai_compatible engine is not running.")
        if model not in self.models:
            raise unknown_model(model, self.models)

    async def _asked(
        self, request: Request | ForwardRequest, ask: Callable[[PoolServer], Awaitable[T]], said: _Said | None
    ) -> T:
        """The answer of one server, or of the next where that one cannot."""
        failed: dict[PoolServer, EngineError] = {}
        while True:
            endpoint = self._choose(request, failed)
            if endpoint is None:
                raise _none_left(failed) if failed or self._some_unknown() else self._not_for_the_model(request)
            try:
                self._learn(await endpoint.reach(self._model, _REACH_AGAIN))
                return await ask(endpoint)
            except UserError as error:
                failed[endpoint] = unavailable(str(error))
            except EngineError as error:
                # What was said cannot be taken back, and another server might say something else.
                if error.kind not in (ErrorKind.UNAVAILABLE, ErrorKind.OVERLOADED) or (said and said.anything):
                    raise
                failed[endpoint] = error

    def _choose(self, request: Request | ForwardRequest, failed: dict[PoolServer, EngineError]) -> PoolServer | None:
        """The endpoint to ask next; None when all have failed this request."""
        left = [each for each in self._endpoints if each not in failed and each.serves(request)]
        # Where none is to be asked, all the same one by one: the caller has waited, and decides how long.
        left = [each for each in left if each.usable()] or left[:1]
        if len(left) < 2:
            return left[0] if left else None
        prefix = prefix_of(request)
        self._recent.note(prefix)
        candidates = [Candidate(each.url, each.load) for each in left]
        crowded = any(each.facts is not None and self._recent.exceed(each.facts.holds) for each in left)
        chosen = by_prefix(prefix, candidates) if crowded else least_busy(candidates)
        return left[candidates.index(chosen)]

    def _some_unknown(self) -> bool:
        """Whether there are servers that were never reached."""
        return any(each.facts is None for each in self._endpoints)

    def _learn(self, facts: ServerFacts) -> None:
        """Of a server that was away at the start."""
        if not facts.endpoints <= self.capabilities.endpoints:
            endpoints = self.capabilities.endpoints | facts.endpoints
            self.capabilities = msgspec.structs.replace(self.capabilities, endpoints=endpoints)

    def _not_for_the_model(self, request: Request | ForwardRequest) -> EngineError:
        """The pool's servers of the model do not have the endpoint, others do."""
        path = request.path if isinstance(request, ForwardRequest) else path_of(request)
        having = [each.facts for each in self._endpoints if each.facts and request.model in each.facts.models]
        return unsupported_endpoint(path, self.name, sorted(set().union(*(facts.endpoints for facts in having))))

    def _settle(self, results: list[ServerFacts | BaseException]) -> None:
        """From what was found at each endpoint to what the pool can do."""
        found: list[ServerFacts] = []
        away: list[str] = []
        for endpoint, result in zip(self._endpoints, results, strict=True):
            if isinstance(result, EngineError):
                away.append(f"{endpoint.url} ({result.message})")
            elif isinstance(result, BaseException):
                raise result
            else:
                found.append(result)
        if not found:
            raise NotNow(
                f"No server answers at {', '.join(away)}: start it, or correct --url; from another machine it must "
                "listen on 0.0.0.0 and its port must be let through the firewall."
            )
        self.models = _models(found, self._model)
        self.capabilities = _capabilities(found, len(self._endpoints), self._options)
        log.info(
            "servers ready", urls=[each.url for each in self._endpoints if each.facts is not None],
            kinds=sorted({each.kind.value for each in found}), models=self.models,
            slots=self.capabilities.slots if self.capabilities.slots_known else None,
        )  # fmt: skip


class _Said:
    """Passes text or events on, and remembers that there were some."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self.anything = False

    def __call__(self, *what: object) -> None:
        self.anything = True
        self._tell(*what)


def _models(found: list[ServerFacts], model: str | None) -> tuple[str, ...]:
    if model is not None:
        return (model,)
    return tuple(dict.fromkeys(name for facts in found for name in facts.models))


def _capabilities(found: list[ServerFacts], endpoints: int, options: OpenAICompatibleOptions) -> Capabilities:
    """What all of the servers can do. How many requests pay is known only if every one of them told."""
    lengths = [facts.context_length for facts in found if facts.context_length is not None]
    told = (
        [options.parallel] * endpoints
        if options.parallel
        else [facts.slots for facts in found if facts.slots is not None]
    )
    known = len(told) == endpoints
    return Capabilities(
        slots=sum(told) if known else _MOST_IN_FLIGHT * endpoints,
        parameters=frozenset.intersection(*(facts.parameters for facts in found)),
        context_length=min(lengths) if len(lengths) == len(found) else None,
        slots_known=known,
        leader_first=all(facts.kind in _SHARED_CACHE for facts in found),
        endpoints=frozenset().union(*(facts.endpoints for facts in found)),
        pinned=pinned_values(options.body_fields),
    )


def _none_left(failed: dict[PoolServer, EngineError]) -> EngineError:
    """Busy if any of them was only busy; else the engine is away."""
    busy = [error for error in failed.values() if error.kind is ErrorKind.OVERLOADED]
    if busy:
        return min(busy, key=lambda error: error.retry_after or 0.0)
    reasons = "; ".join(error.message for error in failed.values())
    crashed = next((error.crashed for error in failed.values() if error.crashed is not None), None)
    return unavailable(reasons or "No server of the pool has that model now.", crashed)
