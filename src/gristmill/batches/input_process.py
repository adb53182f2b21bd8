"""Reading a batch's input: checked, indexed and planned in one pass, in a process of its own where it is large.

The process takes the work off the event loop and off the core that stores the index meanwhile. Planning is an
optimisation: where it fails, the rows run in the order of their lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import threading
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from gristmill.batches.input_reader import InputReader, Limits
from gristmill.length_prefix import next_body, with_length
from gristmill.planning.job_plan import JobPlanner
from gristmill.planning.prefix_boxes import prefix_boxes
from gristmill.planning.token_bill import group_bills, token_bill
from gristmill.storage.blob_store import BlobStore
from gristmill.storage.blobs.open import open_blobs
from gristmill.storage.errors import BlobLost, StorageError
from gristmill.storage.row_records import Row
from gristmill.wire.batch import BatchError, BatchPlan
from gristmill.wire.line_body import Fields
from gristmill.wire.prefix_tree import PrefixBox

#: Inputs up to this size are read in this process: sooner than another has started.
_SMALL_BYTES = 1024 * 1024
#: What the process may be ahead of the database, in bytes of its frames.
_AHEAD = 4 * 1024 * 1024


class InputToRead(msgspec.Struct):
    """The blob ``path``, ``size`` bytes long, of the store at ``blobs``. ``pinned``: see ``JobPlanner``. ``folder`` is
    an empty one, for what planning cannot keep in memory and for what it finds; None: nothing is planned."""

    blobs: str
    path: str
    size: int
    endpoint: str
    defaults: dict[str, Any] | None
    pinned: dict[str, Any]
    models: dict[str, str]
    limits: Limits
    folder: str | None


class Indexed(msgspec.Struct, tag="rows"):
    """Rows that were read, in the order of their lines."""

    rows: list[Row]


class PlanFiles(msgspec.Struct):
    """What was planned. ``order`` is a file of line numbers to run, None where they run as they stand; ``duplicates``
    a file of pairs of line numbers, a row and the one whose answer it gets, None where there are none. The numbers have
    eight bytes each, in the machine's order."""

    summary: BatchPlan
    order: str | None
    duplicates: str | None
    #: What the rows share, to be drawn.
    tree: list[PrefixBox]


class InputRead(msgspec.Struct, tag="end"):
    """The input has been read. With ``errors``, in the order of their lines, nothing runs."""

    total: int
    model: str | None
    errors: list[BatchError]
    #: Errors beyond those that are listed.
    unlisted: int
    plan: PlanFiles | None
    #: Why nothing was planned, where something was to be.
    plan_failure: str | None


class InputUnread(msgspec.Struct, tag="storage"):
    """The store did not give the input; ``lost``: and never will."""

    reason: str
    lost: bool


Frame = Indexed | InputRead
_frame_decoder = msgspec.msgpack.Decoder(Frame | InputUnread)


class ReaderDied(Exception):
    """The process that read the input ended before it was done; the message says how."""


async def read_input(source: InputToRead, blobs: BlobStore) -> AsyncGenerator[Frame]:
    """``Indexed`` frames, then one ``InputRead``. Raises ReaderDied, and what the blob store raises. Closed or
    cancelled, it leaves no process behind."""
    if source.size <= _SMALL_BYTES or source.folder is None:
        async for frame in _read(source, blobs):
            yield frame
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=_AHEAD,
        # Its own session: the terminal's interrupt goes to the server alone.
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr
    printed = asyncio.create_task(process.stderr.read())
    try:
        with contextlib.suppress(ConnectionError):
            process.stdin.write(msgspec.json.encode(source) + b"\n")
            await process.stdin.drain()
        ended = False
        while not ended:
            frame = _frame_decoder.decode(await next_body(process.stdout))
            if isinstance(frame, InputUnread):
                raise (BlobLost if frame.lost else StorageError)(frame.reason)
            ended = isinstance(frame, InputRead)
            yield frame
    except asyncio.IncompleteReadError:
        code = await process.wait()
        last = ((await printed).decode("utf-8", "replace").strip().splitlines() or ["it printed nothing"])[-1]
        raise ReaderDied(f"The process that reads the input ended with exit code {code}: {last}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        printed.cancel()


@contextlib.contextmanager
def planning_folder(scratch: Path) -> Iterator[str]:
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="plan-", dir=scratch, ignore_cleanup_errors=True) as folder:
        yield folder


class _Planning:
    """A planner that gives up at its first failure, and says why."""

    def __init__(self, source: InputToRead) -> None:
        self.failure: str | None = None
        self._folder = Path(source.folder) if source.folder is not None else None
        self._planner: JobPlanner | None = None
        if self._folder is not None:
            self._planner = JobPlanner(source.endpoint, source.defaults, self._folder, source.pinned)

    def add(self, lines: Iterable[tuple[int, bytes, Fields | None]]) -> None:
        for number, data, fields in lines:
            if self._planner is not None:
                try:
                    self._planner.add(number, data, fields)
                except Exception as error:
                    self._give_up(error)

    def files(self) -> PlanFiles | None:
        if self._planner is None or self._folder is None:
            return None
        try:
            return _write_plan(self._planner, self._folder)
        except Exception as error:
            self._give_up(error)
            return None

    def _give_up(self, error: BaseException) -> None:
        self.failure = f"{type(error).__name__}: {error}"
        self._planner = None


def _write_plan(planner: JobPlanner, folder: Path) -> PlanFiles:
    plan = planner.plan()
    bill = token_bill(plan)
    summary = BatchPlan(len(plan.groups), len(plan.duplicates.lines), bill.sent, bill.computed, bill.output)
    order = None if plan.in_line_order else _write(folder / "order", plan.order)
    pairs = array("q", itertools.chain.from_iterable(zip(*plan.duplicates, strict=True)))
    tree = prefix_boxes(plan, group_bills(plan.groups))
    return PlanFiles(summary, order, _write(folder / "duplicates", pairs) if pairs else None, tree)


def _write(path: Path, numbers: array[int]) -> str:
    with path.open("wb") as file:
        numbers.tofile(file)
    return str(path)


async def _read(source: InputToRead, blobs: BlobStore) -> AsyncIterator[Frame]:
    reader = InputReader(source.endpoint, source.defaults, source.models, source.limits)
    planning = _Planning(source)
    async for chunk in blobs.stream(source.path, 0, source.size):
        yield await asyncio.to_thread(_take, reader, planning, chunk)
        if reader.too_many:
            break
    yield await asyncio.to_thread(_take, reader, planning, None)
    errors = reader.found()
    plan = None if errors else await asyncio.to_thread(planning.files)
    yield InputRead(reader.total, reader.model, errors, reader.unlisted, plan, planning.failure)


def _take(reader: InputReader, planning: _Planning, chunk: bytes | None) -> Indexed:
    """The next chunk, or the end of the input."""
    lines = list(reader.feed(chunk) if chunk is not None else reader.finish())
    if not reader.errors:
        planning.add((line.number, data, check.fields) for line, data, check in lines)
    return Indexed(
        [
            Row(line.number, check.custom_id, line.offset, line.length)
            for line, _, check in lines
            if check.custom_id is not None
        ]
    )


async def _serve(source: InputToRead) -> None:
    try:
        async for frame in _read(source, open_blobs(source.blobs)):
            _tell(frame)
    except StorageError as error:
        _tell(InputUnread(str(error), isinstance(error, BlobLost)))


def _tell(frame: Frame | InputUnread) -> None:
    sys.stdout.buffer.write(with_length(msgspec.msgpack.encode(frame)))
    sys.stdout.buffer.flush()


def _main() -> None:
    source = msgspec.json.decode(sys.stdin.buffer.readline(), type=InputToRead)
    threading.Thread(target=_end_with_parent, args=[source.folder or os.devnull], daemon=True).start()
    asyncio.run(_serve(source))


def _end_with_parent(folder: str) -> None:
    """The parent's end of the pipe closes when it dies, however it dies."""
    os.read(sys.stdin.fileno(), 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    _main()
