"""Planning a batch while it is validated: in a process of its own, so that the two take a core each.

The process is given the input as it is read, and gives back the plan. It ends with its parent, whose end of the pipe is
closed then.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from gristmill.batches.lines import LineSplitter
from gristmill.planning.job_plan import JobPlan, JobPlanner

#: Inputs up to this size are planned in a thread: sooner than a process has started.
_SMALL_BYTES = 1024 * 1024
_CHUNK = 1024 * 1024


class PlanSettings(msgspec.Struct):
    """What the planner must know beside the input. Lines longer than ``max_line_bytes`` are left out."""

    endpoint: str
    defaults: dict[str, Any] | None
    max_line_bytes: int


class InputPlanner:
    """Plans an input from its bytes. Lines that are no requests do no harm."""

    def __init__(self, settings: PlanSettings, folder: Path) -> None:
        self._planner = JobPlanner(settings.endpoint, settings.defaults, folder)
        self._splitter = LineSplitter(settings.max_line_bytes)

    def feed(self, chunk: bytes) -> None:
        for line in self._splitter.feed(chunk):
            if line.data is not None:
                self._planner.add(line.number, line.data)

    def finish(self) -> JobPlan:
        for line in self._splitter.finish():
            if line.data is not None:
                self._planner.add(line.number, line.data)
        return self._planner.plan()


class PlanFeed(Protocol):
    """Takes the input, in chunks that may end anywhere; then ``finish`` once."""

    async def feed(self, chunk: bytes) -> None: ...

    async def finish(self) -> JobPlan: ...


@contextlib.asynccontextmanager
async def planning(settings: PlanSettings, input_bytes: int) -> AsyncIterator[PlanFeed]:
    """Whatever was begun for it is gone at the end, finished or not."""
    with tempfile.TemporaryDirectory(prefix="gristmill-plan-", ignore_cleanup_errors=True) as folder:
        if input_bytes <= _SMALL_BYTES:
            yield _Thread(InputPlanner(settings, Path(folder)))
            return
        process = _Process(settings, folder)
        try:
            yield process
        finally:
            await asyncio.to_thread(process.stop)


class _Thread:
    def __init__(self, planner: InputPlanner) -> None:
        self._planner = planner

    async def feed(self, chunk: bytes) -> None:
        await asyncio.to_thread(self._planner.feed, chunk)

    async def finish(self) -> JobPlan:
        return await asyncio.to_thread(self._planner.finish)


class _Process:
    def __init__(self, settings: PlanSettings, folder: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # Its own session: the terminal's interrupt goes to the server alone.
            start_new_session=True,
        )  # fmt: skip
        self._head = msgspec.json.encode(settings) + b"\n"

    async def feed(self, chunk: bytes) -> None:
        await asyncio.to_thread(self._write, self._head + chunk if self._head else chunk)
        self._head = b""

    async def finish(self) -> JobPlan:
        return await asyncio.to_thread(self._finish)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            # Waits in the kernel until the planner has taken it, with other threads free to run.
            self._process.stdin.write(data)
        except BrokenPipeError:
            self._fail()

    def _finish(self) -> JobPlan:
        plan, _ = self._process.communicate()
        if self._process.returncode != 0:
            self._fail()
        found: JobPlan = pickle.loads(plan)
        return found

    def _fail(self) -> None:
        code = self._process.wait()
        assert self._process.stderr is not None
        said = b"" if self._process.stderr.closed else self._process.stderr.read()
        lines = said.decode("utf-8", "replace").strip().splitlines() or ["it printed nothing"]
        raise RuntimeError(f"The planner's process ended with exit code {code}: {lines[-1]}")


def _main(folder: Path) -> None:
    source = sys.stdin.buffer
    planner = InputPlanner(msgspec.json.decode(source.readline(), type=PlanSettings), folder)
    while chunk := source.read(_CHUNK):
        planner.feed(chunk)
    pickle.dump(planner.finish(), sys.stdout.buffer, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
