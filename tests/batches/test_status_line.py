from __future__ import annotations

import pytest

from gristmill.batches.status_line import BatchAtWork, status_line
from gristmill.wire.batch import BatchProgress

MOVING = BatchProgress(rows_per_second=53.21, eta_seconds=7200)
HELD_UP = BatchProgress(waiting_for="Ollama loads another model.")


@pytest.mark.parametrize(
    ("at_work", "outage", "said"),
    [
        ([], None, "No batch to run."),
        ([], "Nobody answers.", "No batch to run. The engine is away: Nobody answers."),
        ([BatchAtWork("batch_1", 0, 0, BatchProgress())], None, "Batch batch_1: reading its rows."),
        (
            [BatchAtWork("batch_1", 34021, 100000, MOVING)],
            None,
            "Batch batch_1: 34,021 of 100,000 rows, 53.2 rows/s, 2.0 hours left.",
        ),
        (
            [BatchAtWork("batch_1", 1, 2, HELD_UP)],
            None,
            "Batch batch_1: 1 of 2 rows. Waiting: Ollama loads another model.",
        ),
        (
            [BatchAtWork("batch_1", 1, 2, MOVING), BatchAtWork("batch_2", 2, 4, MOVING)],
            "Nobody answers.",
            "2 batches: 3 of 6 rows, 106.4 rows/s. Waiting: Nobody answers.",
        ),
    ],
)
def test_what_a_server_does_in_one_sentence(at_work: list[BatchAtWork], outage: str | None, said: str) -> None:
    assert status_line(at_work, outage) == said
