"""Prometheus metrics of this process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

REGISTRY = CollectorRegistry()

_rows = Counter("gristmill_rows", "Rows with a result, by outcome.", ["outcome"], registry=REGISTRY)
_tokens = Counter(
    "gristmill_tokens",
    "Tokens of rows with a result; cached ones are part of prompt.",
    ["kind"],
    registry=REGISTRY,
)

#: By outcome. Looking up a label once, not a row, keeps this off the hot path.
ROWS = {outcome: _rows.labels(outcome) for outcome in ("succeeded", "failed")}
TOKENS = {kind: _tokens.labels(kind) for kind in ("prompt", "cached", "completion")}

FORCED_TOKENS = Counter(
    "gristmill_forced_tokens",
    "Completion tokens that a grammar left no choice about, so that they were never decoded.",
    registry=REGISTRY,
)

ACTIVE_BATCHES = Gauge("gristmill_active_batches", "Batches this process is working on.", registry=REGISTRY)
ENGINE_RESTARTS = Counter(
    "gristmill_engine_restarts",
    "Times the embedded engine's process was started again after it had ended.",
    registry=REGISTRY,
)
IN_FLIGHT = Gauge("gristmill_requests_in_flight", "Requests that the engine has.", registry=REGISTRY)
ENGINE_UP = Gauge("gristmill_engine_up", "1 while the engine answers.", registry=REGISTRY)


def render() -> bytes:
    """The text exposition format."""
    return generate_latest(REGISTRY)
