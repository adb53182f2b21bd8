"""Prometheus metrics of this process. ``docs/reference/metrics.md`` says what each means to whoever watches it."""

from __future__ import annotations

import platform
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric

from gristmill import __version__
from gristmill.telemetry.batch_series import BatchSeries
from gristmill.telemetry.durations import COMMIT_BOUNDS, REQUEST_BOUNDS, DurationFamily

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_rows = Counter("gristmill_rows", "Rows with a result, by outcome.", ["outcome"], registry=REGISTRY)
_tokens = Counter(
    "gristmill_tokens",
    "Tokens of rows with a result; those of prompts that were cached and computed are part of prompt, and only of rows "
    "whose engine tells.",
    ["kind"],
    registry=REGISTRY,
)

#: By outcome. Looking up a label once, not a row, keeps this off the hot path.
ROWS = {outcome: _rows.labels(outcome) for outcome in ("succeeded", "failed")}
TOKENS = {kind: _tokens.labels(kind) for kind in ("prompt", "cached", "computed", "completion")}

FORCED_TOKENS = Counter(
    "gristmill_forced_tokens",
    "Completion tokens that a grammar left no choice about, so that they were never decoded.",
    registry=REGISTRY,
)
PREFIX_TOKENS_READ = Counter(
    "gristmill_prefix_tokens_read",
    "Prompt tokens whose KV state was read from the disk instead of computed.",
    registry=REGISTRY,
)
REPREFILLED_ROWS = Counter(
    "gristmill_reprefilled_rows",
    "Rows that took less than half of what the batch's plan expected from the engine's prefix cache.",
    registry=REGISTRY,
)
MODEL_RELOADS = Counter(
    "gristmill_model_reloads", "Times a row found that Ollama had to load the model again.", registry=REGISTRY
)

ACTIVE_BATCHES = Gauge("gristmill_active_batches", "Batches this process is working on.", registry=REGISTRY)
LEASE_TAKEOVERS = Counter(
    "gristmill_lease_takeovers", "Batches whose lease this process lost to another runner.", registry=REGISTRY
)
ENGINE_RESTARTS = Counter(
    "gristmill_engine_restarts",
    "Times the embedded engine's process was started again after it had ended.",
    registry=REGISTRY,
)
IN_FLIGHT = Gauge("gristmill_requests_in_flight", "Requests that the engine has.", registry=REGISTRY)
WINDOW = Gauge("gristmill_window_requests", "Requests that the engine may have at a time now.", registry=REGISTRY)
ENGINE_UP = Gauge("gristmill_engine_up", "1 while the engine answers.", registry=REGISTRY)
DATABASE_UP = Gauge("gristmill_database_up", "1 while the database can be read.", registry=REGISTRY)
DISK_FREE = Gauge("gristmill_disk_free_bytes", "Free on the disk of the data folder.", registry=REGISTRY)
DISK_SIZE = Gauge("gristmill_disk_size_bytes", "Size of the disk of the data folder.", registry=REGISTRY)

_requests = DurationFamily(
    "gristmill_engine_request_duration_seconds",
    "How long the engine had a request, by how it ended.",
    REQUEST_BOUNDS,
    "outcome",
    ("answered", "invalid_request", "overloaded", "unavailable", "timeout", "interrupted"),
)
_commits = DurationFamily(
    "gristmill_result_commit_duration_seconds", "How long it took to store a group of results.", COMMIT_BOUNDS
)
REGISTRY.register(_requests)
REGISTRY.register(_commits)
#: By outcome: "answered", or the kind of the engine's error.
REQUEST_SECONDS = _requests.by_value
COMMIT_SECONDS = _commits.by_value[""]

_spans = Counter(
    "gristmill_spans", "Spans that the collector has taken (sent) or not (lost).", ["outcome"], registry=REGISTRY
)
SPANS = {outcome: _spans.labels(outcome) for outcome in ("sent", "lost")}
LOST_LOG_LINES = Counter(
    "gristmill_lost_log_lines", "Lines of the log that nobody took, or that could not be written.", registry=REGISTRY
)
HTTP_REQUESTS = Counter(
    "gristmill_http_requests",
    "Requests answered, by the template of their route.",
    ["method", "route", "status"],
    registry=REGISTRY,
)

Gauge("gristmill_build_info", "1; the version that runs.", ["version", "python"], registry=REGISTRY).labels(
    __version__, platform.python_version()
).set(1)
ENGINE_INFO = Gauge("gristmill_engine_info", "1; the engine that is used.", ["engine"], registry=REGISTRY)

_webhook_deliveries = Counter(
    "gristmill_webhook_deliveries",
    "Attempts to deliver a webhook: delivered, failed (tried again later) or dead (given up).",
    ["outcome"],
    registry=REGISTRY,
)
WEBHOOK_DELIVERIES = {outcome: _webhook_deliveries.labels(outcome) for outcome in ("delivered", "failed", "dead")}


def total(name: str) -> int:
    """Of a counter, by its name without ``_total``."""
    return int(REGISTRY.get_sample_value(f"{name}_total") or 0)


def render(batches: BatchSeries | None = None) -> bytes:
    """The text exposition format. ``batches``: what is known of the unfinished ones now."""
    return generate_latest(_Scrape(batches))


class _Scrape:
    """All that one scrape shows: nothing is left of it after the scrape, and two at once share nothing."""

    def __init__(self, batches: BatchSeries | None) -> None:
        self._batches = batches

    def collect(self) -> Iterable[Metric]:
        for family in REGISTRY.collect():
            # The library adds to each counter when it began: 40 more series that nobody asks for.
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            if family.samples:
                yield family
        if self._batches is not None:
            yield from self._batches.collect()
