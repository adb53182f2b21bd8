"""The series of unfinished batches: made anew at each scrape, so that those of a batch that has ended are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily


class BatchSample(NamedTuple):
    """What is known of one unfinished batch, None where it is not; times in seconds, ``..._at`` in Unix time."""

    id: str
    expires_at: float
    rows_remaining: int | None = None
    eta: float | None = None
    reuse: float | None = None
    planned_reuse: float | None = None
    last_result_at: float | None = None


_FAMILIES: tuple[tuple[str, str, Callable[[BatchSample], float | None]], ...] = (
    ("rows_remaining", "Rows of an unfinished batch that have no result yet.", lambda batch: batch.rows_remaining),
    ("eta_seconds", "How long an unfinished batch will still take, at its pace so far.", lambda batch: batch.eta),
    (
        "expires_timestamp_seconds",
        "When the completion window of an unfinished batch ends.",
        lambda batch: batch.expires_at,
    ),
    (
        "reuse_ratio",
        "Prompt tokens from the engine's cache, of all prompt tokens of an unfinished batch so far.",
        lambda batch: batch.reuse,
    ),
    (
        "planned_reuse_ratio",
        "Prompt tokens of an unfinished batch that its plan expects from the engine's cache.",
        lambda batch: batch.planned_reuse,
    ),
    (
        "last_result_timestamp_seconds",
        "When a result of a batch whose rows are to be run now was last stored, or they began to be run.",
        lambda batch: batch.last_result_at,
    ),
)


class BatchSeries:
    """``unfinished`` are those that get series of their own, ``by_status`` counts all."""

    def __init__(self, unfinished: Sequence[BatchSample], by_status: Mapping[str, int]) -> None:
        self._unfinished = unfinished
        self._by_status = by_status

    def collect(self) -> Iterable[GaugeMetricFamily]:
        counted = GaugeMetricFamily("gristmill_batches", "Unfinished batches, by status.", labels=["status"])
        for status, count in self._by_status.items():
            counted.add_metric([status], count)
        yield counted
        for name, documentation, value in _FAMILIES:
            family = GaugeMetricFamily(f"gristmill_batch_{name}", documentation, labels=["batch"])
            for batch in self._unfinished:
                if (found := value(batch)) is not None:
                    family.add_metric([batch.id], found)
            yield family
