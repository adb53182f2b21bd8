"""Looking at a server: the measurements behind the findings."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from gristmill.batches.longest_row import longest_row_tokens
from gristmill.doctor.judgement import (
    CompletionProbe,
    judge_address,
    judge_computing,
    judge_connection,
    judge_context,
    judge_disk,
    judge_endpoints,
    judge_models,
    judge_refusal,
    judge_reuse,
)
from gristmill.doctor.ollama import examine_ollama, ollama_version
from gristmill.engines.openai_compatible.served_paths import PATHS, is_served, question
from gristmill.finding import Finding
from gristmill.http_values import api_base, sent_key, shown
from gristmill.user_error import UserError
from gristmill.wire.paths import CHAT, COMPLETIONS

_CONNECT_SECONDS = 5.0
#: The first answer may have to wait for the model to be loaded.
_ANSWER_SECONDS = 600.0
#: How many sentences a probe has, and how many tokens of context there must be for each (it has a dozen or so).
_SENTENCES, _SENTENCE_ROOM = 40, 24
_SENTENCE = "The doctor looks whether a shared beginning is computed once. "
_ROUND_TRIPS = 5
_JSON = {"Content-Type": "application/json"}


def examine(url: str, input_file: Path | None = None) -> Iterator[Finding]:
    """Findings on the server at ``url`` (with or without ``/v1``, or an Ollama server), in order of importance.

    Stops at the first one that makes the others pointless. Raises UserError for what is not a URL.
    """
    try:
        base = api_base(url)
    except ValueError:
        raise UserError(f"'{shown(url)}' is not a server's URL: write it like http://127.0.0.1:4080.") from None
    parts = urlsplit(base)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = _resolve(parts.hostname, port)
    if not addresses:
        yield judge_address(parts.hostname, addresses)
        return
    connection = _connect(parts.hostname, port)
    version = ollama_version(url) if connection.verdict == "ok" else None
    yield judge_address(parts.hostname, addresses, ollama=version is not None)
    yield connection
    if connection.verdict == "problem":
        return
    timeout = httpx.Timeout(_ANSWER_SECONDS, connect=5.0)
    longest = longest_row_tokens(input_file) if input_file is not None else None
    if version is not None:
        yield from examine_ollama(url, version, longest, timeout)
        return
    key = sent_key()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=base, timeout=timeout, headers=headers) as client:
        yield from _examine_api(client, input_file, longest)


def _examine_api(client: httpx.Client, input_file: Path | None, longest: int | None) -> Iterator[Finding]:
    try:
        answer = client.get("/models")
        if answer.status_code in (401, 403):
            yield judge_refusal(answer.status_code, "Authorization" in client.headers)
            return
        listed = answer.raise_for_status().json()["data"]
        models = [model["id"] for model in listed]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        advice = "Check the URL: it usually ends in /v1."
        yield Finding("models", "problem", f"The server does not speak the OpenAI API ({error}).", advice)
        return
    yield judge_models(models)
    endpoints = _endpoints(client, listed[0])
    yield judge_endpoints(endpoints)
    if not models:
        return
    said = listed[0].get("gristmill")
    if isinstance(said, dict) and isinstance(said.get("computes_on"), str):
        yield judge_computing(said["computes_on"], said.get("advice"))
    ready = _readiness(client)
    if ready is not None and ready.get("status") != "ready":
        yield Finding("engine", "problem", f"Not ready: {ready.get('reason')}", "See the server's log.")
        return
    length = listed[0].get("max_model_len")
    context = length if isinstance(length, int) else None
    if CHAT in endpoints:
        yield from _examine_engine(client, models[0], context, COMPLETIONS in endpoints)
    yield judge_context(context, longest)
    if ready is not None and isinstance(ready.get("disk_free_bytes"), int):
        yield judge_disk(ready["disk_free_bytes"], input_file.stat().st_size if input_file else None)


def _endpoints(client: httpx.Client, model: dict[str, Any]) -> list[str]:
    """What can be asked: as Gristmill says of its models, or as another server shows when it is asked."""
    said = model.get("gristmill")
    if isinstance(said, dict) and isinstance(said.get("endpoints"), list):
        return [str(path) for path in said["endpoints"]]
    found = []
    for path in PATHS:
        with contextlib.suppress(httpx.HTTPError):
            answer = client.post(path.removeprefix("/v1"), content=question(path, model["id"]), headers=_JSON)
            if is_served(answer.status_code, answer.content):
                found.append(path)
    return found


def _examine_engine(client: httpx.Client, model: str, context: int | None, completes: bool) -> Iterator[Finding]:
    """``completes``: it answers text completions besides chats."""
    # New at every visit, so that the first probe finds nothing in the cache.
    times = _SENTENCES if context is None else min(_SENTENCES, context // _SENTENCE_ROOM)
    shared = (
        f"Visit {secrets.token_hex(8)}. " + "The doctor looks whether a shared beginning is computed once. " * times
    )
    try:
        first, second = (_probe_completion(client, model, shared + f"Probe {number}.", completes) for number in (1, 2))
    except (httpx.HTTPError, ValueError, KeyError) as error:
        detail = f"{model} does not answer ({error})."
        yield Finding("engine", "problem", detail, "See the server's log; is the engine running and the model loaded?")
        return
    yield Finding("engine", "ok", f"{model} answers: {first.seconds:.2f} s at first, {second.seconds:.2f} s then.")
    yield judge_reuse(first, second)


def _probe_completion(client: httpx.Client, model: str, text: str, completes: bool) -> CompletionProbe:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0}
    started = time.monotonic()
    answer = client.post("/chat/completions", json=body)
    if answer.status_code == 400 and completes:
        # A base model has no chat template.
        started = time.monotonic()
        answer = client.post("/completions", json={"model": model, "prompt": text, "max_tokens": 1, "temperature": 0})
    usage: dict[str, Any] = answer.raise_for_status().json()["usage"]
    details = usage.get("prompt_tokens_details") or {}
    return CompletionProbe(time.monotonic() - started, usage["prompt_tokens"], details.get("cached_tokens"))


def _readiness(client: httpx.Client) -> dict[str, Any] | None:
    """Gristmill's own readiness; None for other servers."""
    answer = client.get(str(client.base_url.join("/ready")))
    try:
        found = answer.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) and "status" in found else None


def _resolve(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(address[0]) for *_, address in found})


def _connect(host: str, port: int) -> Finding:
    times = []
    for _ in range(_ROUND_TRIPS):
        started = time.monotonic()
        try:
            socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            return judge_connection(host, port, str(error.strerror or error).lower(), [])
        times.append(time.monotonic() - started)
    return judge_connection(host, port, None, times)
