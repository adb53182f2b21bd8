from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gristmill.telemetry.durations import DurationFamily


def test_durations_are_told_as_the_client_library_tells_its_own_histogram() -> None:
    bounds = (0.1, 1.0, 10.0)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    family = DurationFamily("row_seconds", "Rows.", bounds, "outcome", ("good", "bad"))
    ours.register(family)
    histogram = Histogram("row_seconds", "Rows.", ["outcome"], buckets=bounds, registry=theirs)
    for outcome, seconds in [("good", 0.0), ("good", 0.1), ("good", 0.11), ("bad", 5.0), ("bad", 1e9)]:
        family.by_value[outcome].observe(seconds)
        histogram.labels(outcome).observe(seconds)

    def samples(registry: CollectorRegistry) -> dict[object, float]:
        found = text_string_to_metric_families(generate_latest(registry).decode())
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in found
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    assert samples(ours) == samples(theirs)
    assert len(samples(ours)) == 12
