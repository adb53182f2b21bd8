"""The wall clock jumps by a day while batches run: nobody loses a lease, nothing is asked twice, the house is kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from watched_batch import Journal

from gristmill.batches import heartbeat
from gristmill.batches import supervisor as supervising
from gristmill.batches.host import BatchHost, HostSettings
from gristmill.engines.registry import EngineSettings
from gristmill.storage import housekeeping
from gristmill.storage.open import StorageSettings
from gristmill.storage.records import FileRecord, file_blob
from gristmill.wire.batch import CreateBatchRequest
from requests_jsonl import CHAT, chat_file

DAY = 86_400


async def add_file(host: BatchHost, file_id: str, data: bytes) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    async with host.storage.new_blobs.begin(file_blob(file_id)) as write:
        size = await write(chunks())
        await host.storage.metadata.files.add(FileRecord(file_id, size, 1, "in.jsonl", "batch"))


@pytest.mark.parametrize("jumps", [[DAY], [-DAY], [DAY, -2 * DAY, DAY], [-DAY, 2 * DAY]])
async def test_a_jump_of_the_wall_clock_costs_a_batch_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: list[int]
) -> None:
    real, offset = time.time, 0
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(supervising, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(housekeeping, "INTERVAL_SECONDS", 0.02)
    journal = Journal(tmp_path / "journal")
    options = {"latency": "0.02", "slots": "4", "journal": str(journal.path)}
    host = BatchHost(HostSettings(StorageSettings(tmp_path / "data"), EngineSettings("simulated", options=options)))
    await host.start()
    try:
        async with asyncio.timeout(120):
            await add_file(host, "file-1", chat_file(400))
            batch = await host.batches.create(CreateBatchRequest("file-1", CHAT, "10d"))
            for number, jump in enumerate(jumps, start=1):
                while (await host.batches.get(batch.id)).request_counts.completed < 60 * number:
                    await asyncio.sleep(0.01)
                offset += jump
                # Housekeeping goes on whatever the clock says: a file without a batch goes at once.
                await add_file(host, f"file-gone-{number}", b"x")
                await host.storage.metadata.files.delete(f"file-gone-{number}")
                while await host.storage.metadata.files.get_kept(f"file-gone-{number}", None):
                    await asyncio.sleep(0.01)
            while (ended := await host.batches.get(batch.id)).status != "completed":
                assert ended.status in ("in_progress", "finalizing")
                await asyncio.sleep(0.01)
            assert ended.output_file_id is not None
            blob = file_blob(ended.output_file_id)
            data = b"".join([chunk async for chunk in host.storage.blobs.stream(blob)])
    finally:
        await host.stop()
    assert [json.loads(line)["custom_id"] for line in data.splitlines()] == [f"row-{row}" for row in range(400)]
    assert set(Counter(journal.rows()).values()) == {1}
