"""What one server is and can do, asked at the start rather than assumed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from gristmill.engines.errors import EngineError, ErrorKind, unavailable
from gristmill.engines.http import HttpClient
from gristmill.engines.openai_compatible.failures import failure
from gristmill.engines.openai_compatible.routing import Holds
from gristmill.engines.openai_compatible.served_paths import PATHS, is_served, question
from gristmill.engines.openai_compatible.translation import (
    LOGPROBS,
    PARAMETERS,
    STRUCTURE,
    ServerKind,
    kind_of,
)
from gristmill.engines.openai_compatible.wire import ModelCard, ModelCards, Props
from gristmill.engines.protocol import Completion, Request
from gristmill.user_error import NotNow, UserError
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest
from gristmill.wire.paths import CHAT, COMPLETIONS

T = TypeVar("T")
Ask = Callable[[Request, ServerKind], Awaitable[Completion]]

MODELS_PATH = "/v1/models"
_HEALTH_PATH = "/health"

_QUICK = 30.0
_HEALTH_TIMEOUT = 5.0
_LOOK_AGAIN = 1.0
_GENERATED = frozenset({CHAT, COMPLETIONS})
#: vLLM's ``/metrics``: the size of the KV cache, in the labels of a gauge.
_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{(?P<labels>.*)\}", re.M)
_LABEL = re.compile(r'(\w+)="(\d+)"')


class ServerFacts(NamedTuple):
    """``slots`` and ``context_length`` (tokens, prompt and answer together) are None where the server is silent.

    ``endpoints`` are the paths that it answers; ``alive_path`` one that it answers well while it can
    answer requests.
    """

    kind: ServerKind
    models: tuple[str, ...]
    parameters: frozenset[str]
    context_length: int | None
    slots: int | None
    holds: Holds
    endpoints: frozenset[str]
    alive_path: str


async def probe(http: HttpClient, ask: Ask, model: str | None, timeout: float) -> ServerFacts:
    """Raises UserError for what only the user can mend, EngineError for a server that is away."""
    cards = await _when_loaded(lambda: _get(http, MODELS_PATH, ModelCards), timeout)
    card = _choose(cards.data, model, http.url)
    kind = kind_of(card.owned_by)
    endpoints = await _when_loaded(lambda: _endpoints(http, card), timeout)
    if not endpoints:
        raise UserError(f"The server at {http.url} answers none of {', '.join(PATHS)}: check --url.")
    can = await _when_loaded(lambda: _abilities(ask, kind, card.id, endpoints), timeout)
    slots, holds = None, Holds()
    if kind is ServerKind.LLAMA_CPP:
        slots = await _slots(http)
        holds = Holds(prefixes=slots)
    elif kind is ServerKind.VLLM:
        holds = Holds(tokens=await _cache_tokens(http))
    return ServerFacts(
        kind=kind,
        models=tuple(each.id for each in cards.data),
        parameters=PARAMETERS | (LOGPROBS if can.logprobs else set()) | (STRUCTURE if can.structure else set()),
        context_length=card.max_model_len or (card.meta.n_ctx if card.meta is not None else None),
        slots=slots,
        holds=holds,
        endpoints=endpoints if can.generates else endpoints - _GENERATED,
        alive_path=await _alive_path(http),
    )


def _choose(cards: list[ModelCard], model: str | None, url: str) -> ModelCard:
    has = f"It has: {', '.join(card.id for card in cards)}." if cards else "It has none."
    if model is not None:
        for card in cards:
            if card.id == model:
                return card
        raise UserError(f"The server at {url} has no model '{model}'. {has}")
    if not cards:
        raise NotNow(f"The server at {url} serves no model yet: load one there first.")
    if len(cards) > 1 and kind_of(cards[0].owned_by) is ServerKind.OTHER:
        # LM Studio lists all that is on the disk, embedding models too, and loads what is asked for.
        raise UserError(f"Say which model the server at {url} should use, with --model. {has}")
    return cards[0]


async def _endpoints(http: HttpClient, card: ModelCard) -> frozenset[str]:
    if card.gristmill is not None:
        return frozenset(card.gristmill.endpoints)
    found = set()
    for path in PATHS:
        reply = await http.fetch(path, question(path, card.id), _QUICK)
        if reply.status in (429, 503):
            raise failure(reply.status, reply.body, reply.retry_after)
        if is_served(reply.status, reply.body):
            found.add(path)
    return frozenset(found)


class _Abilities(NamedTuple):
    generates: bool
    logprobs: bool
    structure: bool


async def _abilities(ask: Ask, kind: ServerKind, model: str, endpoints: frozenset[str]) -> _Abilities:
    """By three short requests: a server may refuse a parameter, or worse, ignore it."""
    chats = False
    for path, request in ((CHAT, _chat(model)), (COMPLETIONS, _text(model))):
        if path not in endpoints:
            continue
        try:
            await ask(request, kind)
        except EngineError as error:
            # A base model may have no chat template; a model for embeddings refuses both.
            if error.kind is not ErrorKind.INVALID_REQUEST or (path == COMPLETIONS and endpoints <= _GENERATED):
                raise
        else:
            chats = path == CHAT
            break
    else:
        return _Abilities(generates=False, logprobs=False, structure=False)
    logprobs = _chat(model, logprobs=True, top_logprobs=1) if chats else _text(model, logprobs=1)
    return _Abilities(
        generates=True,
        logprobs=await _answer_to(ask, kind, logprobs) is not None,
        structure=await _structures(ask, kind, model, chats),
    )


async def _structures(ask: Ask, kind: ServerKind, model: str, chats: bool) -> bool:
    """Asked for a JSON boolean, a server that honours the schema can say nothing else, but for blanks."""
    schema = {"type": "boolean"}
    if chats:
        wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        answer = await _answer_to(ask, kind, _chat(model, max_tokens=8, response_format=wanted))
    else:
        answer = await _answer_to(ask, kind, _text(model, max_tokens=8, structured_outputs={"json": schema}))
    text = "" if answer is None else answer.choices[0].text
    return bool(text) and any(value.startswith(text.strip()[: len(value)]) for value in ("true", "false"))


async def _answer_to(ask: Ask, kind: ServerKind, request: Request) -> Completion | None:
    """None where the server, or this engine, refuses it."""
    try:
        return await ask(request, kind)
    except EngineError as error:
        # A 500 to a parameter that other requests come without means the same.
        if error.kind not in (ErrorKind.INVALID_REQUEST, ErrorKind.INTERRUPTED):
            raise
        return None


def _chat(model: str, max_tokens: int = 1, **parameters: Any) -> ChatCompletionRequest:
    messages = [Message(role="user", content="Is water wet?")]
    return ChatCompletionRequest(messages=messages, model=model, max_tokens=max_tokens, temperature=0.0, **parameters)


def _text(model: str, max_tokens: int = 1, **parameters: Any) -> CompletionRequest:
    return CompletionRequest(prompt="Is water wet?", model=model, max_tokens=max_tokens, temperature=0.0, **parameters)


async def _when_loaded(ask: Callable[[], Awaitable[T]], timeout: float) -> T:
    """Wait for a server that answers but has not loaded its model yet, or is busy."""
    end = time.monotonic() + timeout
    while True:
        try:
            async with asyncio.timeout(end - time.monotonic()):
                return await ask()
        except TimeoutError:
            raise unavailable(f"it did not answer within {timeout:g} seconds") from None
        except EngineError as error:
            waits = error.kind is ErrorKind.OVERLOADED or "loading model" in error.message.lower()
            if not waits or time.monotonic() + _LOOK_AGAIN >= end:
                raise
        await asyncio.sleep(_LOOK_AGAIN)


async def _get(http: HttpClient, path: str, shape: type[T]) -> T:
    reply = await http.fetch(path, timeout=_QUICK)
    if reply.status in (401, 403):
        raise UserError(
            f"The server at {http.url} refuses the key: put it in an environment variable, and name that variable "
            "with the option api_key_env."
        )
    if reply.status == 404:
        raise UserError(f"What answers at {http.url} has no {path}: it does not speak the OpenAI API; check --url.")
    if reply.status != 200:
        raise failure(reply.status, reply.body, reply.retry_after)
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"What answers at {http.url} does not speak the OpenAI API: {error}.") from None


async def _slots(http: HttpClient) -> int | None:
    try:
        return (await _get(http, "/props", Props)).total_slots
    except (EngineError, UserError):
        return None


async def _alive_path(http: HttpClient) -> str:
    """vLLM's API server outlives its engine for a moment, and only ``/health`` says so. Not every server has that; and
    a proxy may lead it nowhere, so it is only believed where it says now that all is well."""
    try:
        reply = await http.fetch(_HEALTH_PATH, timeout=_HEALTH_TIMEOUT)
    except EngineError:
        return MODELS_PATH
    return _HEALTH_PATH if reply.status == 200 else MODELS_PATH


async def _cache_tokens(http: HttpClient) -> int | None:
    reply = await http.fetch("/metrics", timeout=_QUICK)
    return cache_tokens(reply.body.decode("utf-8", "replace")) if reply.status == 200 else None


def cache_tokens(metrics: str) -> int | None:
    """The tokens whose KV state fits into vLLM's cache, by its metrics. Pure."""
    found = _CACHE_CONFIG.search(metrics)
    labels = dict(_LABEL.findall(found["labels"])) if found else {}
    if "num_gpu_blocks" not in labels or "block_size" not in labels:
        return None
    return int(labels["num_gpu_blocks"]) * int(labels["block_size"])
