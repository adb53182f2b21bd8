from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.batches import lifecycle
from gristmill.batches.lifecycle import Step
from gristmill.storage.records import TERMINAL_STATUSES, BatchRecord
from gristmill.wire.batch import BatchError, BatchPlan
from gristmill.wire.prefix_tree import PrefixBox

UNFINISHED = ("validating", "in_progress", "finalizing")


@pytest.mark.parametrize("status", UNFINISHED)
def test_what_has_not_ended_can_be_cancelled(status: str) -> None:
    assert lifecycle.cancel_requested(status, 7) == {
        "status": "cancelling",
        "cancelling_at": 7,
        "paused_at": None,
    }


@pytest.mark.parametrize("status", ["cancelling", "cancelled"])
def test_cancelling_again_changes_nothing(status: str) -> None:
    assert lifecycle.cancel_requested(status, 7) is None


@pytest.mark.parametrize("status", ["completed", "failed", "expired"])
def test_what_has_ended_otherwise_cannot_be_cancelled(status: str) -> None:
    with pytest.raises(lifecycle.NotAllowed, match=status):
        lifecycle.cancel_requested(status, 7)


def test_only_the_four_ends_of_the_contract_are_terminal() -> None:
    assert set(TERMINAL_STATUSES) == {"completed", "failed", "expired", "cancelled"}
    assert not any(lifecycle.is_terminal(status) for status in (*UNFINISHED, "cancelling"))
    assert all(lifecycle.is_terminal(status) for status in TERMINAL_STATUSES)


@pytest.mark.parametrize("status", ["completed", "expired", "cancelled"])
def test_an_end_sets_its_own_time_and_the_files_that_have_lines(status: str) -> None:
    assert lifecycle.ended(status, "file-1", None, 9) == {
        "status": status,
        f"{status}_at": 9,
        "output_file_id": "file-1",
        "error_file_id": None,
        "paused_at": None,
    }


def test_each_step_sets_its_time() -> None:
    errors = [BatchError("invalid_json_line", "no")]
    assert lifecycle.rejected(errors, 1) == {
        "status": "failed",
        "failed_at": 1,
        "errors": errors,
        "paused_at": None,
    }
    plan, tree = BatchPlan(1, 2, 30, 4), [PrefixBox(1, 0.0, 100.0, 3, 10, 2.0, 20, 1)]
    validated = {"status": "in_progress", "in_progress_at": 2, "total": 3, "model": "m", "plan": plan}
    assert lifecycle.validated(3, "m", plan, tree, 2) == validated | {"prefix_tree": tree}
    assert lifecycle.all_rows_done(3) == {"status": "finalizing", "finalizing_at": 3, "paused_at": None}


def record(status: str, **fields: object) -> BatchRecord:
    given = {"expires_at": 100, "total": 3, "completed": 1} | fields
    return BatchRecord(1, "batch_1", "/v1/chat/completions", "file-1", "24h", status, 1, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["validating", "in_progress"])
def test_what_has_rows_to_run_can_be_paused_resumed_and_given_another_priority(status: str) -> None:
    running, paused = record(status), record(status, paused_at=5)
    assert lifecycle.pause_requested(running, 7) == {"paused_at": 7}
    assert lifecycle.pause_requested(paused, 7) is None
    assert lifecycle.resume_requested(paused) == {"paused_at": None}
    assert lifecycle.resume_requested(running) is None
    assert lifecycle.priority_requested(running, 2) == {"priority": 2}
    assert lifecycle.priority_requested(running, 0) is None


@pytest.mark.parametrize("status", ["finalizing", "cancelling", *TERMINAL_STATUSES])
def test_nothing_else_can(status: str) -> None:
    requests = (
        lambda: lifecycle.pause_requested(record(status), 7),
        lambda: lifecycle.resume_requested(record(status)),
        lambda: lifecycle.priority_requested(record(status), 0),
    )
    for request in requests:
        with pytest.raises(lifecycle.NotAllowed, match=status):
            request()


def test_a_paused_batch_rests_until_it_is_cancelled_or_its_window_is_over_or_its_rows_are_done() -> None:
    for status in "validating", "in_progress":
        assert lifecycle.rests(record(status, paused_at=5), 99)
        assert lifecycle.next_step(record(status, paused_at=5), 99) is None
        assert lifecycle.next_step(record(status, paused_at=5), 100) is Step.EXPIRE
        assert not lifecycle.rests(record(status, paused_at=5), 100) and not lifecycle.rests(record(status), 99)
    assert lifecycle.next_step(record("cancelling", paused_at=5), 99) is Step.CANCEL
    assert lifecycle.next_step(record("in_progress", paused_at=5, failed=2), 99) is Step.FINALIZE
    assert not any(lifecycle.rests(record(status, paused_at=5), 99) for status in TERMINAL_STATUSES)


@pytest.mark.parametrize(
    ("window", "seconds"),
    [("24h", 86_400), ("1m", 60), ("90m", 5_400), ("30d", 2_592_000), ("366d", 31_622_400), ("8784h", 31_622_400)],
)
def test_a_window_is_a_number_of_minutes_hours_or_days(window: str, seconds: int) -> None:
    assert lifecycle.window_seconds(window) == seconds


@pytest.mark.parametrize(
    "window",
    ["", "24", "h", "0h", "-1h", "+1h", "024h", "24H", "24 h", " 24h", "24h ", "24h\n", "1.5h", "1w", "1s", "367d",
     "8785h", "999999d", "9999999m", "٢٤h", "1h30m"],
)  # fmt: skip
def test_anything_else_is_no_window(window: str) -> None:
    assert lifecycle.window_seconds(window) is None


@given(st.text(max_size=12))
def test_no_text_breaks_the_reading_of_a_window(window: str) -> None:
    seconds = lifecycle.window_seconds(window)
    assert seconds is None or 60 <= seconds <= lifecycle.LONGEST_WINDOW_SECONDS
