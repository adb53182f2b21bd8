"""A batch of very many short rows, validated and planned inside a process that has other things to do.

    python benchmarks/planner batch [--rows 10000000] [--duplicates 3000000] [--of 3000000] [--run] [--folder FOLDER]

The last ``--duplicates`` rows ask what ``--of`` of the first rows ask. What is measured: seconds, the longest time for
which the event loop did nothing else, and the resident memory of the process and of the reader that it starts. With
``--run`` the batch runs to its end on the simulated engine, too. It takes about 700 bytes of disk a row.
"""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop

from gristmill.batches.host import BatchHost, HostSettings
from gristmill.batches.lifecycle import is_terminal
from gristmill.engines.registry import EngineSettings
from gristmill.storage.open import StorageSettings
from gristmill.storage.records import FileRecord, file_blob
from gristmill.wire.batch import Batch, CreateBatchRequest

CHAT = "/v1/chat/completions"
#: How often the event loop is looked at, in seconds; the system's timers add about a millisecond.
_LOOK = 0.005


def write_rows(path: Path, rows: int, duplicates: int, of: int) -> None:
    distinct = rows - duplicates
    with path.open("w") as file:
        for row in range(rows):
            asks = row if row < distinct else (row - distinct) % of
            file.write(
                f'{{"custom_id":"row-{row}","method":"POST","url":"{CHAT}","body":{{"model":"simulated","messages":['
                '{"role":"system","content":"Score the candidate from 0 to 10, by the years of experience alone."},'
                f'{{"role":"user","content":"Candidate {asks}, a miller"}}],"max_tokens":1,"temperature":0}}}}\n'
            )


class Watch:
    """The longest hold of the event loop, by the clock and by its own computing, and the most memory, since
    ``begin``."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._ended = threading.Event()
        self.begin()
        threading.Thread(target=self._look_at_memory, daemon=True).start()

    def begin(self) -> None:
        self.held = self.computed = 0.0
        self.own = self.readers = 0

    def found(self) -> dict[str, Any]:
        return {
            "longest_hold_ms": round(1000 * self.held, 1),
            "longest_hold_computing_ms": round(1000 * self.computed, 1),
            "peak_memory_mb": round(self.own / 1e6),
            "peak_reader_memory_mb": round(self.readers / 1e6),
        }

    def end(self) -> None:
        self._ended.set()

    async def look_at_loop(self) -> None:
        while True:
            before, computed = time.perf_counter(), time.thread_time()
            await asyncio.sleep(_LOOK)
            self.held = max(self.held, time.perf_counter() - before - _LOOK)
            # What other programs take of the processors, or other threads of Python's lock, is no part of it.
            self.computed = max(self.computed, time.thread_time() - computed)

    def _look_at_memory(self) -> None:
        while not self._ended.wait(0.2):
            self.own = max(self.own, self._process.memory_info().rss)
            readers = 0
            for child in self._process.children(recursive=True):
                try:
                    readers += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.readers = max(self.readers, readers)


async def _measure(folder: Path, source: Path, to_end: bool) -> dict[str, Any]:
    engine = EngineSettings("simulated", options={"prefill_speed": "1e12", "decode_speed": "1e12"})
    host = BatchHost(HostSettings(StorageSettings(folder / "data"), engine, stop_grace=0))
    await host.start()
    watch = Watch()
    looking = asyncio.create_task(watch.look_at_loop())
    try:
        await host.storage.metadata.files.add(FileRecord("file-input", _link(source, folder), 1, "in.jsonl", "batch"))
        found: dict[str, Any] = {"idle": await _idle(watch)}
        watch.begin()
        began = time.perf_counter()
        batch = await host.batches.create(CreateBatchRequest("file-input", CHAT, "24h"))
        while batch.status == "validating":
            await asyncio.sleep(0.1)
            batch = await host.batches.get(batch.id)
        found["validated"] = {"seconds": round(time.perf_counter() - began, 1), **watch.found()}
        found["plan"] = _plan(batch)
        print(found, flush=True)
        if to_end:
            watch.begin()
            began = time.perf_counter()
            while not is_terminal(batch.status):
                await asyncio.sleep(0.1)
                batch = await host.batches.get(batch.id)
            counts = batch.request_counts
            seconds = round(time.perf_counter() - began, 1)
            found["run"] = {"seconds": seconds, "completed": counts.completed, "failed": counts.failed, **watch.found()}
    finally:
        looking.cancel()
        watch.end()
        await host.stop()
    return found


def _link(source: Path, folder: Path) -> int:
    """As ``gristmill run`` does: the input is read where it is. Its bytes."""
    blob = folder / "data" / "blobs" / file_blob("file-input")
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.symlink_to(source.resolve())
    return source.stat().st_size


async def _idle(watch: Watch) -> dict[str, Any]:
    watch.begin()
    await asyncio.sleep(3)
    return watch.found()


def _plan(batch: Batch) -> dict[str, Any]:
    plan = batch.gristmill.plan if batch.gristmill else None
    assert plan is not None and plan.failure is None, (batch.status, batch.errors)
    return {"rows": batch.request_counts.total, "duplicates": plan.deduplicated, "groups": plan.prefix_groups}


def batch_speed(rows: int, duplicates: int, of: int, folder: Path, to_end: bool) -> dict[str, Any]:
    source = folder / "rows.jsonl"
    write_rows(source, rows, duplicates, of)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_measure(folder, source, to_end))
    database = sum(path.stat().st_size for path in (folder / "data").glob("gristmill.db*"))
    return {
        "rows": rows,
        "duplicates": duplicates,
        "of": of,
        "file_gb": round(source.stat().st_size / 1e9, 2),
        "database_gb": round(database / 1e9, 2),
        **found,
    }
