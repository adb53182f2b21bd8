"""Planning a batch's input beside its validation: in a process of its own, so that the two take a core each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec

from gristmill.batches.lines import Line, LineSplitter
from gristmill.planning.job_plan import JobPlan, JobPlanner
from gristmill.storage.blobs import open_blobs
from gristmill.storage.protocol import BlobStore

#: Inputs up to this size are planned in a thread: sooner than a process has started.
_SMALL_BYTES = 1024 * 1024


class InputToPlan(msgspec.Struct):
    """The blob ``path`` of the store at ``blobs``, ``size`` bytes long. Longer lines than ``max_line_bytes`` are left
    out; lines that are no requests do no harm."""

    blobs: str
    path: str
    size: int
    endpoint: str
    defaults: dict[str, Any] | None
    max_line_bytes: int


async def plan_input(source: InputToPlan) -> JobPlan:
    """Cancelled, it leaves nothing behind, neither process nor file."""
    with tempfile.TemporaryDirectory(prefix="gristmill-plan-", ignore_cleanup_errors=True) as folder:
        if source.size <= _SMALL_BYTES:
            return await _plan(source, open_blobs(source.blobs), Path(folder))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, folder,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            # Its own session: the terminal's interrupt goes to the server alone.
            start_new_session=True,
        )  # fmt: skip
        try:
            return await _answer_of(process, source)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def add_lines(planner: JobPlanner, lines: list[Line]) -> None:
    """Those that were not too long to be kept."""
    for line in lines:
        if line.data is not None:
            planner.add(line.number, line.data)


async def _answer_of(process: asyncio.subprocess.Process, source: InputToPlan) -> JobPlan:
    assert process.stdin and process.stdout and process.stderr
    with contextlib.suppress(ConnectionError):
        process.stdin.write(msgspec.json.encode(source) + b"\n")
        await process.stdin.drain()
    answer, printed = await asyncio.gather(process.stdout.read(), process.stderr.read())
    if code := await process.wait():
        last = (printed.decode("utf-8", "replace").strip().splitlines() or ["it printed nothing"])[-1]
        raise RuntimeError(f"The planner's process ended with exit code {code}: {last}")
    plan: JobPlan = pickle.loads(answer)
    return plan


async def _plan(source: InputToPlan, blobs: BlobStore, folder: Path) -> JobPlan:
    planner = JobPlanner(source.endpoint, source.defaults, folder)
    splitter = LineSplitter(source.max_line_bytes)
    async for chunk in blobs.stream(source.path):
        await asyncio.to_thread(add_lines, planner, splitter.feed(chunk))
    add_lines(planner, splitter.finish())
    return await asyncio.to_thread(planner.plan)


def _main(folder: Path) -> None:
    source = msgspec.json.decode(sys.stdin.buffer.readline(), type=InputToPlan)
    threading.Thread(target=_end_with_parent, args=[folder], daemon=True).start()
    plan = asyncio.run(_plan(source, open_blobs(source.blobs), folder))
    pickle.dump(plan, sys.stdout.buffer, protocol=pickle.HIGHEST_PROTOCOL)
    sys.stdout.buffer.flush()


def _end_with_parent(folder: Path) -> None:
    """The parent's end of the pipe closes when it dies, however it dies."""
    os.read(sys.stdin.fileno(), 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
