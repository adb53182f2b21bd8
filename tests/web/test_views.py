"""What pages say: figures become words in pure functions."""

from __future__ import annotations

import msgspec
import pytest

from gristmill.telemetry.progress import Counts
from gristmill.telemetry.throughput import KEPT, KEPT_JOBS, Sample, Throughput, thinned
from gristmill.web.batch_row import BatchRow, band, batch_row, percent, reused
from gristmill.web.curves import FollowedCurves, columns, curves, recent
from gristmill.web.milestones import TOLD_SECONDS, Milestones
from gristmill.wire.batch import (
    Batch,
    BatchPlan,
    BatchProgress,
    BatchUsage,
    InputTokensDetails,
    OutputTokensDetails,
    RequestCounts,
)


def a_batch(done: int = 0, total: int = 100, status: str = "in_progress", **fields: object) -> Batch:
    given = {"id": "batch_1", "endpoint": "/v1/chat/completions", "input_file_id": "file-1", "completion_window": "24h"}
    given |= {"status": status, "created_at": 1, "request_counts": RequestCounts(total, done, 0)}
    return Batch(**(given | fields))  # type: ignore[arg-type]


def usage(prompt: int, cached: int | None) -> BatchUsage:
    return BatchUsage(prompt, InputTokensDetails(cached), 0, OutputTokensDetails(), prompt)


@pytest.mark.parametrize(
    ("done", "total", "told"),
    [
        (0, 0, "0 %"),
        (0, 9, "0 %"),
        (1, 10**6, "0.1 %"),
        (10**6 - 1, 10**6, "99.9 %"),
        (7, 7, "100 %"),
        (1, 3, "33.3 %"),
    ],
)
def test_a_share_is_full_only_when_all_is_done(done: int, total: int, told: str):
    assert percent(done, total) == told


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (None, None, ""), (6840, 8640, "1.9 to 2.4 hours"), (3000, 7200, "50 minutes to 2.0 hours"),
        (3600, 7200, "1.0 to 2.0 hours"), (60, None, "at least 1.0 minute"), (7200, 7210, ""),
    ],
)  # fmt: skip
def test_a_band_names_its_unit_once(low: float | None, high: float | None, told: str):
    assert band(BatchProgress(eta_low_seconds=low, eta_high_seconds=high)) == told


@pytest.mark.parametrize(("fields", "told"), [({}, "It may not fit."), ({"completed_at": 5}, "")])
def test_that_a_batch_may_not_fit_on_the_disk_is_told_while_it_runs(fields: dict[str, int], told: str):
    progress = BatchProgress(plan=BatchPlan(disk_warning="It may not fit."))
    assert batch_row(a_batch(gristmill=progress, **fields)).warning == told


def test_the_reused_share_is_of_all_batches_and_unknown_where_one_is():
    batches = [a_batch(usage=usage(100, 90)), a_batch(usage=usage(300, 210)), a_batch(usage=None)]
    assert reused(batches) == "75.0 %"
    assert reused([*batches, a_batch(usage=usage(1, None))]) == ""
    assert reused([]) == ""


def row(done: int = 0, status: str = "in_progress") -> BatchRow:
    return batch_row(a_batch(done, status=status), "candidates")


def test_only_milestones_are_told_and_only_for_a_while():
    milestones = Milestones()
    assert milestones.told(0, [row(30)]) == ""
    assert milestones.told(1, [row(49)]) == ""
    assert milestones.told(2, [row(50)]) == "candidates: 50 % done."
    assert milestones.told(3, [row(51)]) == "candidates: 50 % done."
    assert milestones.told(2 + TOLD_SECONDS, [row(52)]) == ""
    assert milestones.told(30, [row(100, "finalizing")]) == "candidates: writing the files."
    assert milestones.told(31, [row(100, "completed")], "refused") == (
        "candidates: completed. The engine has trouble: refused."
    )
    assert milestones.told(90, [row(100, "completed")], "refused again") == ""
    assert milestones.told(91, [row(100, "completed")]) == "The engine answers again."


def test_throughput_is_what_was_done_between_two_samples():
    found = Throughput()
    begun = {"a": Counts(100, prompt_tokens=1_000)}
    found.note(5, 5, {"a": Counts(110, prompt_tokens=1_500)}, begun)
    found.note(10, 5, {"a": Counts(120, prompt_tokens=1_600), "b": Counts(5)}, begun)
    found.note(15, 5, {}, {})
    assert found.all() == [Sample(5, 2, 100), Sample(10, 3, 20), Sample(15, 0, 0)]
    assert found.of_one("b") == [Sample(10, 1, 0)]
    assert found.of(["b", "unknown"]) == [Sample(5, 0, 0), Sample(10, 1, 0), Sample(15, 0, 0)]


def test_throughput_takes_bounded_memory():
    found = Throughput()
    for number in range(KEPT + 10):
        found.note(number, 1, {f"batch_{number}": Counts(1)}, {})
    assert len(found.all()) == KEPT
    assert sum(bool(found.of_one(f"batch_{number}")) for number in range(KEPT + 10)) == KEPT_JOBS


def test_a_long_series_is_thinned_by_means():
    samples = [Sample(at, at, 1) for at in range(10)]
    assert thinned(samples, 3) == [Sample(3, 1.5, 1), Sample(7, 5.5, 1), Sample(9, 8.5, 1)]
    assert thinned([], 3) == []


def test_a_curve_has_a_picture_a_table_and_figures():
    samples = [Sample(5 * at, 2.0 * (at % 2), 1_000) for at in range(600)]
    found = curves(samples)
    assert found.rows.path.count("L") <= 480 and found.rows.most == "1" and found.tokens.now == "1,000"
    assert len(found.table) <= 12 and (found.begin, found.end) == ("00:00", "00:49")
    times, rows, tokens = msgspec.json.decode(columns(samples))
    assert len(times) == len(rows) == len(tokens) <= 480
    assert curves([]).begin == "" and columns([]) == b"[[],[],[]]"


def test_the_curves_of_a_page_that_follows_are_made_with_each_new_sample_and_drawn_by_its_script():
    followed, samples = FollowedCurves(), [Sample(5 * at, at, 1_000) for at in range(60)]
    assert followed.of([]).begin == "" and followed.newest == b""
    made = followed.of(samples)
    assert followed.newest == recent(samples)
    assert made.rows.path == made.tokens.path == ""
    assert made == curves(samples)._replace(rows=made.rows, tokens=made.tokens) and made.rows.most == "59"
    assert followed.of(list(samples)) is made and followed.newest == b""
    assert followed.of([*samples, Sample(300, 99, 1_000)]).rows.most == "99" and followed.newest != b""
