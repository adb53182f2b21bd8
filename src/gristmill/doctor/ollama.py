"""Looking at an Ollama server, by its native API, without changing what it has loaded."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import msgspec

from gristmill.doctor.judgement import judge_context, judge_models
from gristmill.doctor.ollama_judgement import (
    PrefillProbe,
    judge_keep_alive,
    judge_model_endpoints,
    judge_nothing_loaded,
    judge_place,
    judge_prefill,
    judge_version,
)
from gristmill.engines.ollama.facts import model_facts
from gristmill.engines.ollama.settings import base_url
from gristmill.engines.ollama.wire import AnswerPart, RunningModel, RunningModels, Show, Tags, Version
from gristmill.finding import Finding
from gristmill.inference.endpoints import offered
from gristmill.user_error import UserError
from gristmill.wire.paths import CHAT

_NANOSECONDS = 1e9
#: About 500 tokens: enough to tell prefill from noise, and short for any context.
_SHARED = "The doctor looks whether a shared beginning is computed once. " * 45


def ollama_version(url: str) -> str | None:
    """The version of the Ollama that answers at ``url`` (with or without /v1); None where something else does."""
    try:
        answer = httpx.get(f"{base_url(url)}/api/version", timeout=5.0)
        return msgspec.json.decode(answer.content, type=Version).version if answer.status_code == 200 else None
    except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def examine_ollama(url: str, version: str, longest_row: int | None, timeout: httpx.Timeout) -> Iterator[Finding]:
    """Findings in the order in which they matter."""
    yield judge_version(version)
    with httpx.Client(base_url=base_url(url), timeout=timeout) as client:
        try:
            yield from _examine(client, longest_row)
        except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError) as error:
            yield Finding("engine", "problem", f"Ollama does not answer as it should ({error}).", "See its log.")


def _examine(client: httpx.Client, longest_row: int | None) -> Iterator[Finding]:
    tags = msgspec.json.decode(client.get("/api/tags").raise_for_status().content, type=Tags)
    yield judge_models([each.name for each in tags.models])
    running = msgspec.json.decode(client.get("/api/ps").raise_for_status().content, type=RunningModels).models
    if not running:
        yield judge_nothing_loaded()
    for model in running:
        yield judge_place(model)
        yield judge_keep_alive(model, datetime.now(UTC))
        yield judge_context(model.context_length, longest_row)
        served = _served(client, model)
        yield judge_model_endpoints(model.name, offered(served))
        if model.context_length is not None and CHAT in served:
            yield _probe_twice(client, model)


def _served(client: httpx.Client, model: RunningModel) -> frozenset[str]:
    """The endpoints that Gristmill can answer with the model; none with one that neither generates nor embeds."""
    answer = client.post("/api/show", json={"model": model.name}).raise_for_status()
    try:
        return model_facts(msgspec.json.decode(answer.content, type=Show), model.name).endpoints
    except UserError:
        return frozenset()


def _probe_twice(client: httpx.Client, model: RunningModel) -> Finding:
    # New at every visit, so that the first probe finds nothing in the cache.
    shared = f"Visit {secrets.token_hex(8)}. {_SHARED}"
    try:
        first, second = (_probe_prefill(client, model, f"{shared}Probe {number}.") for number in (1, 2))
    except httpx.HTTPStatusError as error:
        return Finding("prefix reuse", "problem", f"{model.name} does not answer: {error.response.text[:300]}")
    return judge_prefill(model.name, first, second)


def _probe_prefill(client: httpx.Client, model: RunningModel, text: str) -> PrefillProbe:
    """With the context the model is loaded with, and without keep_alive, which stays as it is then."""
    body = {
        "model": model.name,
        "messages": [{"role": "user", "content": text}],
        "stream": False,
        "truncate": False,
        "options": {"num_ctx": model.context_length, "num_predict": 1, "temperature": 0},
    }
    answer = client.post("/api/chat", json=body).raise_for_status()
    part = msgspec.json.decode(answer.content, type=AnswerPart)
    return PrefillProbe(
        part.load_duration / _NANOSECONDS,
        part.prompt_eval_duration / _NANOSECONDS,
        part.prompt_eval_count or 0,
        part.prompt_eval_cached_count,
    )
