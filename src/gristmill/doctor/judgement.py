"""What measurements mean: pure functions from what was seen to a finding."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from gristmill.finding import Finding

#: A batch needs room for its results beside its input; below this many bytes something will soon fail.
_LITTLE_DISK = 2 * 1024**3
#: Reuse below this share of a prompt that is nearly all shared means that the prefix cache does not work.
REUSE_WORKS = 0.5


class CompletionProbe(NamedTuple):
    """One small completion: ``seconds`` it took, and what its usage said (None: not reported)."""

    seconds: float
    prompt_tokens: int
    cached_tokens: int | None


def judge_address(host: str, addresses: list[str], ollama: bool = False) -> Finding:
    """Whether other machines can reach the server at this address at all. ``ollama``: that is what answers there."""
    if not addresses:
        advice = "Check the name, or use the machine's IP address."
        return Finding("address", "problem", f"The name '{host}' is not known here.", advice)
    if all(ipaddress.ip_address(address).is_loopback for address in addresses):
        detail = f"{host} is this machine talking to itself; other machines cannot use this address."
        command = "OLLAMA_HOST=0.0.0.0 ollama serve" if ollama else "gristmill serve --host 0.0.0.0"
        advice = f"To serve the network: {command}, and use the machine's own IP address."
        return Finding("address", "note", detail, advice)
    return Finding("address", "ok", f"{host} is {', '.join(addresses)}.")


def judge_connection(host: str, port: int, error: str | None, round_trips: list[float]) -> Finding:
    """``round_trips`` in seconds."""
    if error is not None:
        refused = "refused" in error
        advice = (
            "Nothing listens there: start the server (gristmill serve, or ollama serve), on another machine with "
            "--host 0.0.0.0 (for Ollama: OLLAMA_HOST=0.0.0.0)."
            if refused
            else f"The machine or its firewall does not answer: allow TCP port {port} there (ufw allow {port}/tcp)."
        )
        return Finding("connection", "problem", f"{host}:{port} cannot be reached ({error}).", advice)
    median = sorted(round_trips)[len(round_trips) // 2]
    return Finding("connection", "ok", f"{host}:{port} answers; round trip {median * 1000:.1f} ms.")


def judge_refusal(status: int, key_sent: bool) -> Finding:
    """``status`` is 401 or 403."""
    if not key_sent:
        return Finding("key", "problem", f"The server asks for a key ({status}).", "Set GRISTMILL_API_KEY to yours.")
    detail = f"The server does not take the key that was sent ({status})."
    return Finding("key", "problem", detail, "Check GRISTMILL_API_KEY; a key may have been revoked.")


def judge_models(models: list[str]) -> Finding:
    if not models:
        return Finding("models", "problem", "The server has no model.", "Start it with --model, or pull one.")
    return Finding("models", "ok", ", ".join(models[:8]) + (" ..." if len(models) > 8 else ""))


def judge_endpoints(paths: list[str]) -> Finding:
    """What can be asked of the server, directly and in batches."""
    if paths:
        return Finding("endpoints", "ok", ", ".join(paths))
    return Finding("endpoints", "problem", "The server answers no requests.", "Check the URL: it usually ends in /v1.")


def judge_computing(on: str, advice: str | None) -> Finding:
    """``on``: what computes; ``advice``: what would be faster."""
    return Finding("computes on", "ok" if advice is None else "note", f"{on[:1].upper()}{on[1:]}.", advice or "")


def judge_reuse(first: CompletionProbe, second: CompletionProbe) -> Finding:
    """Two prompts with the same long beginning, one after the other."""
    if second.cached_tokens is None:
        ratio = first.seconds / second.seconds if second.seconds else 0.0
        detail = f"The server does not report cached tokens; the second probe took {ratio:.1f} times less time."
        return Finding("prefix reuse", "note", detail)
    share = second.cached_tokens / max(second.prompt_tokens, 1)
    detail = f"{second.cached_tokens:,} of {second.prompt_tokens:,} prompt tokens were reused by a second prompt."
    if share >= REUSE_WORKS:
        return Finding("prefix reuse", "ok", detail)
    advice = "The shared part is computed again for every row: switch prefix caching on in the engine."
    return Finding("prefix reuse", "problem", detail, advice)


def judge_context(context_length: int | None, longest_row: int | None) -> Finding:
    """``longest_row`` is an estimate in tokens, output included; None where no input was given."""
    if context_length is None:
        return Finding("context", "note", "The server does not say how long its context is.")
    if longest_row is None:
        return Finding("context", "ok", f"{context_length:,} tokens.")
    detail = f"{context_length:,} tokens; the longest row needs about {longest_row:,}."
    if longest_row <= context_length:
        return Finding("context", "ok", detail)
    return Finding("context", "problem", detail, "Raise the engine's context length, or shorten the rubric.")


def judge_disk(free_bytes: int, input_bytes: int | None) -> Finding:
    """The input is stored once; results and their files are at most about as large again."""
    needed = max(_LITTLE_DISK, 3 * (input_bytes or 0))
    detail = f"{free_bytes / 1e9:,.1f} GB free for the server's data."
    if free_bytes >= needed:
        return Finding("disk", "ok", detail)
    advice = f"Free at least {needed / 1e9:,.1f} GB, or move the data folder with --data."
    return Finding("disk", "problem", detail, advice)
