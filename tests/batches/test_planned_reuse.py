"""Rows that the engine computes again, silently: what the plan expects of its cache, beside what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.batches.host import BatchHost, HostSettings
from gristmill.batches.planned_reuse import planned_reuse
from gristmill.engines.registry import EngineSettings
from gristmill.storage.open import StorageSettings
from gristmill.storage.records import FileRecord, UnfinishedBatch, file_blob
from gristmill.telemetry.metrics import REGISTRY
from gristmill.wire.batch import BatchPlan, CreateBatchRequest
from requests_jsonl import CHAT, chat_line, jsonl

RUBRIC = "The rubric, which all rows share, to the letter. " * 30


def planned(total: int, plan: BatchPlan | None) -> float | None:
    return planned_reuse(UnfinishedBatch("batch_1", 1, 2, total, 0, 0, None, plan))


@pytest.mark.parametrize(
    ("total", "plan", "expected"),
    [
        (100, None, None),
        (100, BatchPlan(failure="no memory"), None),
        (0, BatchPlan(0, 0, 0, 0), None),
        (100, BatchPlan(1, 0, 1000, 100), 0.9),
        (100, BatchPlan(0, 0, 1000, 1000), 0.0),
        # Half of the rows get another's answer and ask nothing: of what the others ask, nothing is shared.
        (100, BatchPlan(0, 50, 1000, 500), 0.0),
        (100, BatchPlan(1, 50, 1000, 100), 0.8),
        # Longer rows are the duplicates: the average says too little of the others.
        (100, BatchPlan(0, 50, 1000, 600), 0.0),
        (2, BatchPlan(0, 2, 10, 0), None),
    ],
)
def test_the_share_that_rows_are_expected_to_reuse(total: int, plan: BatchPlan | None, expected: float | None) -> None:
    assert planned(total, plan) == (None if expected is None else pytest.approx(expected))


def computed_again(folder: Path, **options: Any) -> float:
    """Of 40 rows that share nearly all of their prompts."""

    async def chunks() -> AsyncIterator[bytes]:
        yield jsonl([chat_line(f"row-{index}", f"{RUBRIC} Candidate {index}.") for index in range(40)])

    async def main() -> None:
        engine = EngineSettings("simulated", options={name: str(value) for name, value in options.items()})
        host = BatchHost(HostSettings(StorageSettings(folder), engine))
        await host.start()
        try:
            async with asyncio.timeout(60):
                size = await host.storage.blobs.write(file_blob("file-1"), chunks())
                await host.storage.metadata.files.add(FileRecord("file-1", size, 1, "in.jsonl", "batch"))
                created = await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h"))
                while (await host.batches.get(created.id)).status != "completed":
                    await asyncio.sleep(0.01)
        finally:
            await host.stop()

    before = REGISTRY.get_sample_value("gristmill_reprefilled_rows_total")
    asyncio.run(main())
    after = REGISTRY.get_sample_value("gristmill_reprefilled_rows_total")
    assert before is not None and after is not None
    return after - before


def test_rows_that_an_engine_without_its_cache_computes_again_are_counted(tmp_path: Path) -> None:
    assert computed_again(tmp_path / "kept", slots=1) == 1
    assert computed_again(tmp_path / "lost", slots=1, cached_prompts=0) == 40
