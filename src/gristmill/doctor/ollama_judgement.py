"""What an Ollama server tells of itself, and what it means for a batch: pure functions from what was seen to a finding.

The facts behind them are in docs/how-to/optimise.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from gristmill.doctor.judgement import REUSE_WORKS
from gristmill.engines.ollama.facts import check_version, stays_forever
from gristmill.engines.ollama.reloads import LOAD_SECONDS
from gristmill.engines.ollama.wire import RunningModel
from gristmill.finding import Finding
from gristmill.user_error import UserError

#: A second prompt whose prefill took less than this share of the first one's cannot have been computed whole.
_SHORTER_PREFILL = 0.5


class PrefillProbe(NamedTuple):
    """One small request, as Ollama accounts for it. Seconds; ``cached_tokens`` None where it is not reported."""

    load_seconds: float
    prefill_seconds: float
    prompt_tokens: int
    cached_tokens: int | None


def judge_version(version: str) -> Finding:
    try:
        reports = check_version(version)
    except UserError as error:
        return Finding("server", "problem", str(error), "Update Ollama on that machine.")
    if reports:
        return Finding("server", "ok", f"Ollama {version}, which reports cached tokens.")
    detail = f"Ollama {version} works, but does not report cached tokens: reuse shows in the time only."
    return Finding("server", "note", detail, "Update to 0.33.3 or newer to see them.")


def judge_model_endpoints(model: str, paths: Sequence[str]) -> Finding:
    """What can be asked of a model, through Gristmill in front of Ollama."""
    if paths:
        return Finding("endpoints", "ok", f"{model} answers {', '.join(paths)}.")
    return Finding("endpoints", "note", f"{model} neither generates text nor embeds it: it is of no use for batches.")


def judge_nothing_loaded() -> Finding:
    detail = (
        "No model is loaded: the first row waits until it is, and prefix reuse cannot be probed without loading one."
    )
    return Finding(
        "loaded", "note", detail, "Ask again during a batch, or after: ollama run MODEL --keepalive 30m hello"
    )


def judge_place(running: RunningModel) -> Finding:
    """Whether the model computes on a GPU. Ollama puts on the CPU whatever does not fit, and says nothing."""
    check = f"{running.name} on the GPU"
    if not running.size:
        return Finding(check, "note", "The server does not say.")
    share = (running.size_vram or 0) / running.size
    if share >= 1:
        return Finding(check, "ok", f"All of it ({running.size / 1e9:.1f} GB).")
    if not share:
        return Finding(
            check, "note", "Nothing of it: it computes on the CPU.", "With a GPU: see the server's log for why."
        )
    detail = f"{share:.0%} of {running.size / 1e9:.1f} GB; the rest computes on the CPU, and every token waits for it."
    advice = "Make it fit: a smaller num_ctx or OLLAMA_NUM_PARALLEL, a smaller model, or free GPU memory (nvidia-smi)."
    return Finding(check, "problem", detail, advice)


def judge_keep_alive(running: RunningModel, now: datetime) -> Finding:
    check = f"{running.name} stays loaded"
    if stays_forever(running):
        return Finding(check, "ok", "For ever (keep_alive -1).")
    try:
        minutes = (datetime.fromisoformat(running.expires_at) - now).total_seconds() / 60
    except (ValueError, TypeError):
        return Finding(check, "note", "The server does not say how long.")
    detail = f"For {max(minutes, 0):.0f} more minutes without a request."
    advice = "Gristmill keeps it loaded while it runs; for other clients: OLLAMA_KEEP_ALIVE=-1 ollama serve."
    return Finding(check, "note", detail, advice)


def judge_prefill(model: str, first: PrefillProbe, second: PrefillProbe) -> Finding:
    """Two prompts with the same long beginning. The count of prompt tokens includes cached ones, so it cannot tell."""
    check = "prefix reuse"
    if second.load_seconds >= LOAD_SECONDS:
        detail = f"{model} was loaded again between two requests with the same options ({second.load_seconds:.1f} s)."
        advice = (
            "Another client asks for it with other options: give all clients the same num_ctx, best in the Modelfile."
        )
        return Finding(check, "problem", detail, advice)
    times = f"prefill took {first.prefill_seconds * 1000:,.0f} ms, then {second.prefill_seconds * 1000:,.0f} ms"
    if second.cached_tokens is not None:
        works = second.cached_tokens >= REUSE_WORKS * second.prompt_tokens
        detail = f"{second.cached_tokens:,} of {second.prompt_tokens:,} prompt tokens were reused; {times}."
    else:
        works = second.prefill_seconds < _SHORTER_PREFILL * first.prefill_seconds
        detail = f"Judged by time, as the server does not count it: {times}."
    if works:
        return Finding(check, "ok", detail)
    advice = "gemma3 needs Ollama 0.30 or newer for it; a busy server may have used the slot for others: ask again."
    return Finding(check, "problem", detail, advice)
