"""A batch's life under thousands of schedules: whatever happens between any two of its steps, the contract holds.

Each schedule is a seed. It makes a few batches and lets things happen to them at moments of its own choosing: cancels,
ends of windows, servers that are stopped or killed and started again, an engine that goes away or cuts rows off, a disk
that refuses. Then all is well again, and everything has to come to its end. Replay one with SCHEDULE_SEED=number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gristmill.batches import execution, runner, supervisor, validation
from gristmill.batches.service import BatchService
from gristmill.batches.supervisor import Supervisor
from gristmill.dispatch import dispatcher
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.retry import RetryPolicy
from gristmill.engines.protocol import Capabilities, Choice, Completion, EngineError, ErrorKind, OnText, Request
from gristmill.storage.answers import AnswerStore
from gristmill.storage.housekeeping import tidy
from gristmill.storage.new_blobs import AnnouncedBlobs
from gristmill.storage.protocol import Storage, StorageError
from gristmill.storage.records import TERMINAL_STATUSES, BatchRecord, FileRecord, file_blob
from gristmill.storage.sql import database
from gristmill.storage.sql.store import SqlMetadataStore
from gristmill.wire.batch import CreateBatchRequest
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.errors import ApiError
from requests_jsonl import CHAT, chat_line, jsonl
from seeded_loop import live

SCHEDULES = int(os.environ.get("SCHEDULES", "2000"))
FIRST = int(os.environ.get("SCHEDULE_SEED", "0"))
#: Every simulated process opens the database anew; SQL need not be made anew as well.
COMPILED: dict[Any, Any] = {}
#: Schedules a test: a failure names its seed, the others go on.
GROUP = 100

#: What the contract allows.
TRANSITIONS = {
    ("validating", "in_progress"), ("validating", "failed"), ("validating", "cancelling"), ("validating", "expired"),
    ("in_progress", "finalizing"), ("in_progress", "expired"), ("in_progress", "cancelling"),
    ("finalizing", "completed"), ("finalizing", "cancelling"), ("cancelling", "cancelled"), ("cancelling", "failed"),
}  # fmt: skip
BEGIN = 1_000_000.0
#: How late the end of a window may be noticed, in seconds.
#: Looks that are as frequent as in real life would be most of what the test does.
WATCH, LOOK = 10.0, 20.0
NOTICE = WATCH + 1.0


class MemoryBlobs:
    """Blobs that survive the simulated process."""

    def __init__(self, chance: random.Random) -> None:
        self.kept: dict[str, bytes] = {}
        self._chance = chance

    @property
    def location(self) -> str:
        return "for other processes, which there are none of"

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        data = b"".join([chunk async for chunk in chunks])
        await self._wait()
        self.kept[path] = data
        await self._wait()
        return len(data)

    async def size(self, path: str) -> int:
        await self._wait()
        return len(self.kept[path])

    async def discard(self, path: str) -> int:
        await self._wait()
        return len(self.kept.pop(path, b""))

    async def read(self, path: str, start: int, length: int) -> bytes:
        await self._wait()
        return self.kept[path][start : start + length]

    async def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        await self._wait()
        return [self.kept[path][start : start + length] for start, length in ranges]

    async def stream(self, path: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        await self._wait()
        data = self.kept[path][start:end]
        for position in range(0, len(data), 700):
            yield data[position : position + 700]
            await self._wait()

    async def delete(self, path: str) -> None:
        await self._wait()
        self.kept.pop(path, None)

    async def _wait(self) -> None:
        await asyncio.sleep(self._chance.choice((0, 0, 1e-4, 0.01)))


class FickleEngine:
    """Answers after some time, if it is there; what a row is called says what becomes of it."""

    name = "fickle"
    models = ("simulated",)
    capabilities = Capabilities(3, frozenset(), True)

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self.away = False

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def fingerprint(self) -> str | None:
        await asyncio.sleep(self._chance.choice((0, 0.01, 0.5)))
        return "weights"

    async def complete(self, request: Request, on_text: OnText | None = None) -> Completion:
        assert isinstance(request, ChatCompletionRequest)
        row = request.messages[-1].text()
        if self.away:
            raise EngineError(ErrorKind.UNAVAILABLE, "refused", status=503)
        self._world.begins(row)
        try:
            await asyncio.sleep(self._chance.choice((0, 0.001, 0.1, 2)))
            if self.away:
                raise EngineError(ErrorKind.INTERRUPTED, "cut off", status=500)
            if row.endswith("unlucky") or self._chance.random() < 0.05:
                kind = self._chance.choice((ErrorKind.INTERRUPTED, ErrorKind.TIMEOUT, ErrorKind.OVERLOADED))
                raise EngineError(kind, "for a while", status=500)
            if row.endswith("wrong"):
                raise EngineError(ErrorKind.INVALID_REQUEST, "wrong", code="wrong")
            if row.endswith("defect"):
                raise ZeroDivisionError("a defect of the engine")
        finally:
            self._world.ends(row)
        return Completion("simulated", (Choice(row, "stop"),), 10, 1, 0)


class World:
    """What outlives a process, and what is known of all that happened."""

    def __init__(self, seed: int, folder: Path, template: Path) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        shutil.copy(template, folder / "test.db")
        self.blobs = MemoryBlobs(self.chance)
        self.now: Callable[[], float] = lambda: BEGIN
        #: By input file, which is as good as by batch: the ids of its rows, and when the last of them may be begun.
        self.rows: dict[str, list[str]] = {}
        self.no_new_after: dict[str, float] = {}
        self.stopped_at: float | None = None
        self.in_flight: Counter[str] = Counter()
        self.stored: set[tuple[int, int]] = set()
        self.asked: Counter[str] = Counter()
        self.faults: list[str] = []
        self.refusing = False

    def begins(self, row: str) -> None:
        self.asked[row] += 1
        self.in_flight[row] += 1
        if self.stopped_at is not None:
            self.faults.append(f"{row} was asked at {self.now()}, after the stop at {self.stopped_at}")
        limit = self.no_new_after.get(row.split()[0])
        if limit is not None and self.now() > limit:
            self.faults.append(f"{row} was asked at {self.now()}, after {limit}")

    def ends(self, row: str) -> None:
        self.in_flight[row] -= 1

    def store(self) -> Storage:
        """The storage, with an eye on what is asked of it."""
        metadata = SqlMetadataStore(f"sqlite:///{self.folder / 'test.db'}")
        change, commit = metadata.batches.change, metadata.rows.commit

        async def watched_change(batch_id: str, changes: dict[str, Any], *, expected: str, files: Any = ()) -> bool:
            self._refuse()
            done = await change(batch_id, changes, expected=expected, files=files)
            after = changes.get("status", expected)
            if done and after != expected and (expected, after) not in TRANSITIONS:
                self.faults.append(f"{batch_id} went from {expected} to {after}")
            return done

        async def watched_commit(seq: int, owner: str, results: Any) -> None:
            self._refuse()
            await commit(seq, owner, results)
            for result in results:
                if (seq, result.line) in self.stored:
                    self.faults.append(f"line {result.line} of batch {seq} has two results")
                self.stored.add((seq, result.line))

        metadata.batches.change = watched_change  # type: ignore[method-assign]
        metadata.rows.commit = watched_commit  # type: ignore[method-assign]
        return Storage(metadata, self.blobs, AnnouncedBlobs(metadata, self.blobs))

    def _refuse(self) -> None:
        if self.refusing:
            raise StorageError("The disk is full: free some space.")


class Process:
    """One server process: what ``BatchHost`` puts together, on a simulated machine."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.engine = FickleEngine(world)

    async def run(self, story: Callable[[Process], Awaitable[None]]) -> None:
        world = self.world
        self.storage = world.store()
        self.dispatcher = Dispatcher(self.engine, policy=RetryPolicy(max_attempts=4, first_delay=0.1, max_delay=5))
        answers = AnswerStore(world.folder / "answers.db")
        self.supervisor = Supervisor(self.storage, self.dispatcher, answers, world.folder / "scratch")
        self.service = BatchService(self.storage, self.supervisor)
        await self.storage.metadata.batches.release_all()
        running = asyncio.create_task(self.supervisor.run())
        await story(self)
        grace = world.chance.choice((0.0, 0.5, 20.0))
        world.stopped_at = world.now()
        await self.supervisor.stop(grace)
        if world.now() > world.stopped_at + grace + 0.5:
            world.faults.append(f"a stop with a grace of {grace} took {world.now() - world.stopped_at} seconds")
        if +world.in_flight:
            world.faults.append(f"after the stop {+world.in_flight} were in flight")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await self.storage.metadata.stop()

    async def make_batch(self) -> None:
        world, chance = self.world, self.world.chance
        name = f"batch{len(world.rows)}"
        kinds = chance.choices(("fine", "wrong", "unlucky", "defect", "same"), (12, 1, 1, 1, 2), k=chance.randint(1, 9))
        rows = [
            chat_line(f"row-{n}", f"{name} {'' if kind == 'same' else n} {kind}", temperature=0)
            for n, kind in enumerate(kinds)
        ]
        data = jsonl(rows) + (b"no JSON\n" if chance.random() < 0.05 else b"")
        world.rows[name] = [row["custom_id"] for row in rows]

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        async with self.storage.new_blobs.begin(file_blob(name)) as write:
            await write(chunks())
            await self.storage.metadata.files.add(FileRecord(name, len(data), 1, "in.jsonl", "batch"))
        batch = await self.service.create(
            CreateBatchRequest(
                name, CHAT, chance.choice(("1m", "1h", "24h")), priority=chance.randint(-1, 1),
                reuse_answers=chance.random() < 0.2,
            )
        )  # fmt: skip
        assert batch.expires_at is not None
        world.no_new_after[name] = batch.expires_at + NOTICE

    async def cancel_one(self) -> None:
        world = self.world
        batches = await all_batches(self.storage)
        if not batches:
            return
        try:
            batch = await self.service.cancel(world.chance.choice(batches).id)
        except (ApiError, StorageError):
            return
        limit = world.no_new_after.get(batch.input_file_id, math.inf)
        world.no_new_after[batch.input_file_id] = min(limit, world.now())

    async def misfortune(self) -> None:
        """Something happens; some of it passes by itself."""
        chance = self.world.chance
        match chance.choice(("nothing", "cancel", "away", "disk", "create", "tidy")):
            case "tidy":
                with contextlib.suppress(StorageError):
                    await tidy(self.storage, int(self.world.now()))
            case "cancel":
                await self.cancel_one()
            case "away":
                self.engine.away = True
                asyncio.get_running_loop().call_later(chance.choice((0.1, 5, 40)), setattr, self.engine, "away", False)
            case "disk":
                self.world.refusing = True
                asyncio.get_running_loop().call_later(chance.choice((0.1, 5)), setattr, self.world, "refusing", False)
            case "create" if len(self.world.rows) < 4:
                await self.make_batch()


async def troubles(process: Process) -> None:
    chance = process.world.chance
    if not process.world.rows:
        await process.make_batch()
    for _ in range(chance.randint(1, 5)):
        await asyncio.sleep(chance.choice((0, 0.001, 0.01, 0.05, 0.3, 3, 30)))
        await process.misfortune()
    await asyncio.sleep(chance.choice((0, 0.002, 0.02, 0.2, 2)))


async def until_all_is_done(process: Process) -> None:
    process.world.refusing = False
    while any(batch.status not in TERMINAL_STATUSES for batch in await all_batches(process.storage)):
        await asyncio.sleep(5)
    # What comes after the end of a batch is part of it.
    await asyncio.sleep(1)
    await tidy(process.storage, int(process.world.now()))


class _Quiet:
    def info(self, *_: object, **__: object) -> None: ...

    warning = error = info


def live_through(seed: int, folder: Path, template: Path, patch: pytest.MonkeyPatch) -> World:
    world = World(seed, folder, template)
    for module in (dispatcher, execution, runner, supervisor, validation):
        patch.setattr(module, "log", _Quiet())
    patch.setattr(runner, "_WATCH_SECONDS", WATCH)
    patch.setattr(supervisor, "LOOK_SECONDS", LOOK)
    now = BEGIN
    for story in [troubles] * world.chance.randint(1, 3) + [until_all_is_done]:
        kill_at = world.chance.randint(5, 1500) if story is troubles and world.chance.random() < 0.5 else None
        world.stopped_at = None
        world.in_flight.clear()
        process = Process(world)

        async def main(process: Process = process, story: Any = story) -> None:
            loop = asyncio.get_running_loop()
            world.now = loop.time
            patch.setattr(time, "time", loop.time)
            patch.setattr(time, "monotonic", loop.time)
            async with asyncio.timeout(3 * 86_400):
                await process.run(story)

        now, _ = live(main, world.chance, now, kill_at)
        now += 0.01
    return world


def judge(world: World) -> None:
    """Every batch is over, each of its lines is in exactly one file, and nothing else is left."""

    async def main() -> None:
        storage = world.store()
        files = await storage.metadata.files.page(after=None, limit=100, newest_first=True, purpose=None)
        assert set(world.blobs.kept) == {file_blob(file.id) for file in files.records}
        for record in await all_batches(storage):
            assert record.status in TERMINAL_STATUSES
            rows = world.rows[record.input_file_id]
            output, errors = lines(world, record.output_file_id), lines(world, record.error_file_id)
            if record.status == "failed":
                assert record.errors and not output and not errors
                continue
            assert [line["custom_id"] for line in output] == [row for row in rows if row in {*map(ident, output)}]
            assert sorted(map(ident, output + errors)) == sorted(rows)
            unrun = [line for line in errors if line["error"] and line["error"]["code"].startswith("batch_")]
            assert record.total == len(rows) and record.completed == len(output)
            assert record.failed == len(errors) - len(unrun)
            assert {line["error"]["code"] for line in unrun} <= {f"batch_{record.status}"}
            assert not (record.status == "completed" and unrun)
            assert await storage.metadata.rows.not_succeeded(record.seq, 0, 99) == []
        await storage.metadata.stop()

    asyncio.run(main())
    assert not world.faults, world.faults


async def all_batches(storage: Storage) -> list[BatchRecord]:
    return list((await storage.metadata.batches.page(after=None, limit=100)).records)


def ident(line: dict[str, Any]) -> str:
    return str(line["custom_id"])


def lines(world: World, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [json.loads(line) for line in world.blobs.kept[file_blob(file_id)].splitlines()]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, made once."""
    path = tmp_path_factory.mktemp("template") / "test.db"

    async def main() -> None:
        store = SqlMetadataStore(f"sqlite:///{path}")
        await store.start()
        await store.stop()

    asyncio.run(main())
    return path


@pytest.mark.parametrize("first", range(FIRST, FIRST + SCHEDULES, GROUP))
def test_whatever_happens_between_any_two_steps_the_contract_holds(
    first: int, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure = database._configure_sqlite

    def configure_for_memory(connection: Any, record: Any) -> None:
        configure(connection, record)
        # The simulated process dies; the machine does not.
        connection.execute("PRAGMA synchronous = OFF")

    def create_with_known_statements(url: str) -> Any:
        return create(url).execution_options(compiled_cache=COMPILED)

    create = database._create_engine
    monkeypatch.setattr(database, "_configure_sqlite", configure_for_memory)
    monkeypatch.setattr(database, "_create_engine", create_with_known_statements)
    for seed in range(first, first + (1 if "SCHEDULE_SEED" in os.environ else GROUP)):
        with tempfile.TemporaryDirectory(dir=memory_folder()) as folder, pytest.MonkeyPatch.context() as patch:
            try:
                world = live_through(seed, Path(folder), template, patch)
                patch.undo()
                judge(world)
            except BaseException as error:
                error.add_note(f"in schedule {seed}: replay it with SCHEDULE_SEED={seed}")
                raise


def memory_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
