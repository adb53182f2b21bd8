"""A server on a simulated machine, with all that can go wrong around it; see ``test_every_schedule.py``."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import update

from gristmill.batches.heartbeat import HEARTBEAT_SECONDS
from gristmill.batches.places import PLACES
from gristmill.batches.service import BatchService
from gristmill.batches.supervisor import Supervisor
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.retry import RetryPolicy
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import Capabilities, Choice, Completion, LabelRequest, LabelScores, OnDelta, Request
from gristmill.storage.answers import AnswerStore
from gristmill.storage.disk_room import DiskRoom
from gristmill.storage.errors import BlobLost, StorageError
from gristmill.storage.housekeeping import tidy
from gristmill.storage.open import storage_of
from gristmill.storage.protocol import Storage
from gristmill.storage.records import (
    TERMINAL_STATUSES,
    BatchRecord,
    Claim,
    FileRecord,
    Lease,
    Stage,
    file_blob,
)
from gristmill.storage.sql.schema import batches
from gristmill.storage.sql.store import SqlMetadataStore
from gristmill.wire.batch import Batch, CreateBatchRequest
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.errors import ApiError
from requests_jsonl import CHAT, chat_line, jsonl

SCORE = "/v1/score"
BEGIN = 10_000_000.0
#: Looks that are as frequent as in real life would be most of what the test does.
WATCH, LOOK = 10.0, 20.0
#: How late the end of a window, or the loss of a lease, may be noticed, in seconds.
NOTICE = WATCH + 1.0
NOTICE_LEASE = HEARTBEAT_SECONDS + 1.0
DAY = 86_400.0
#: What the contract allows.
TRANSITIONS = {
    ("validating", "in_progress"), ("validating", "failed"), ("validating", "cancelling"), ("validating", "expired"),
    ("in_progress", "finalizing"), ("in_progress", "expired"), ("in_progress", "cancelling"),
    ("finalizing", "completed"), ("finalizing", "cancelling"), ("cancelling", "cancelled"), ("cancelling", "failed"),
}  # fmt: skip
#: What may be in no log.
UNEXPECTED = {"batch put off by an unexpected error", "a row failed unexpectedly", "a task failed and starts again"}
#: What may happen between two moments of a schedule.
MISFORTUNES = (
    "nothing", "cancel", "pause", "pause", "resume", "priority", "retry", "retry",
    "away", "crash", "disk", "create", "create", "tidy", "take", "clock", "delete", "lose",
)  # fmt: skip
#: What becomes of a row; most are fine. Of those called "same" a batch has several that ask the same.
KINDS = {"fine": 12, "wrong": 1, "unlucky": 1, "defect": 1, "dropped": 1, "killer": 1, "same": 3}
#: Long enough to be worth a leader of its prefix.
SHARED = "shared " * 400


class MemoryBlobs:
    """Blobs that survive the simulated process."""

    def __init__(self, chance: random.Random) -> None:
        self.kept: dict[str, bytes] = {}
        self._chance = chance

    @property
    def location(self) -> str:
        return "nowhere that another process could read"

    async def room(self) -> DiskRoom | None:
        raise OSError("on no disk")

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        data = b"".join([chunk async for chunk in chunks])
        await self._wait()
        self.kept[path] = data
        await self._wait()
        return len(data)

    async def size(self, path: str) -> int:
        return len(await self._whole(path))

    async def discard(self, path: str) -> int:
        await self._wait()
        return len(self.kept.pop(path, b""))

    async def read(self, path: str, start: int, length: int) -> bytes:
        return (await self._whole(path))[start : start + length]

    async def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        whole = await self._whole(path)
        return [whole[start : start + length] for start, length in ranges]

    async def stream(
        self, path: str, start: int = 0, end: int | None = None, chunk_bytes: int | None = None
    ) -> AsyncIterator[bytes]:
        data = (await self._whole(path))[start:end]
        for position in range(0, len(data), 700):
            yield data[position : position + 700]
            await self._whole(path)

    async def delete(self, path: str) -> None:
        await self._wait()
        self.kept.pop(path, None)

    async def _whole(self, path: str) -> bytes:
        await self._wait()
        if path not in self.kept:
            raise BlobLost(f"The bytes of {path} are gone.")
        return self.kept[path]

    async def _wait(self) -> None:
        await asyncio.sleep(self._chance.choice((0, 0, 1e-4, 0.01)))


class FickleEngine:
    """Answers after some time, if it is there; what a row is called says what becomes of it."""

    name = "fickle"
    models = ("simulated",)

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self.capabilities = Capabilities(
            3, frozenset(), slots_known=world.chance.random() < 0.7, leader_first=world.shares_prefix,
            endpoints=frozenset({CHAT, SCORE}),
        )  # fmt: skip
        self._away_until = 0.0
        self._crashes = 0

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def fingerprint(self) -> str | None:
        await asyncio.sleep(self._chance.choice((0, 0.01, 0.5)))
        return "weights"

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        assert isinstance(request, ChatCompletionRequest)
        row = await self._answer(request.messages[-1].text())
        return Completion("simulated", (Choice(row, "stop"),), 10, 1, 0)

    async def score(self, request: LabelRequest, *, interactive: bool = False) -> LabelScores:
        assert isinstance(request.prompt, str)
        await self._answer(request.prompt)
        return LabelScores("simulated", (-0.1,) * len(request.labels), 10, 0)

    def go_away(self, seconds: float) -> None:
        self._away_until = self._world.now() + seconds

    def crash(self) -> None:
        self._crashes += 1

    @property
    def _away(self) -> bool:
        return self._world.now() < self._away_until

    async def _answer(self, prompt: str) -> str:
        row = prompt.rpartition("#")[2].split(";")[0]
        kind = row.rpartition(" ")[2]
        if self._away:
            raise EngineError(ErrorKind.UNAVAILABLE, "refused", status=503)
        self._world.begins(row)
        before = self._crashes
        try:
            await asyncio.sleep(self._chance.choice((0, 0.001, 0.1, 2)))
            if kind == "killer":
                self.crash()
            if self._crashes != before:
                raise EngineError(ErrorKind.INTERRUPTED, "it crashed", status=500, crashed="server")
            if self._away:
                raise EngineError(ErrorKind.INTERRUPTED, "cut off", status=500)
            if kind == "unlucky" or self._chance.random() < 0.05:
                error = self._chance.choice((ErrorKind.INTERRUPTED, ErrorKind.TIMEOUT, ErrorKind.OVERLOADED))
                raise EngineError(error, "for a while", status=500)
            if kind == "wrong":
                raise EngineError(ErrorKind.INVALID_REQUEST, "wrong", code="wrong")
            if kind == "defect":
                raise ZeroDivisionError("a defect of the engine")
            if kind == "dropped":
                # As of a future that the engine has cancelled.
                raise asyncio.CancelledError
        finally:
            self._world.ends(row)
        return row


class World:
    """What outlives a process, and what is known of all that happened."""

    def __init__(self, seed: int, folder: Path, template: Path) -> None:
        #: The store that was opened last.
        self.opened: SqlMetadataStore | None = None
        self.chance = random.Random(seed)
        self.folder = folder
        shutil.copy(template, folder / "test.db")
        self.blobs = MemoryBlobs(self.chance)
        #: The steady clock, and how far the wall clock is ahead of it, and since when.
        self.now: Callable[[], float] = lambda: BEGIN
        self.wall_ahead = 0.0
        self.clock_set_at = 0.0
        self.shares_prefix = self.chance.random() < 0.2
        #: By input file, which is as good as by batch: the ids of its rows, the end of its window on the wall clock,
        #: and on the steady clock when it was cancelled and when another server took it.
        self.rows: dict[str, list[str]] = {}
        self.window_end: dict[str, float] = {}
        self.cancelled_at: dict[str, float] = {}
        self.paused_at: dict[str, float] = {}
        self.taken_at: dict[str, float] = {}
        #: By the input of a retry: that of the batch which was asked first, whose name its rows still bear.
        self.first_input: dict[str, str] = {}
        #: Input files whose bytes got lost.
        self.lost: set[str] = set()
        self.stopped_at: float | None = None
        self.in_flight: Counter[str] = Counter()
        self.stored: set[tuple[int, int]] = set()
        self.faults: list[str] = []
        self.refuses_until = 0.0
        self.refused_share = 1.0

    def wall(self) -> float:
        return self.now() + self.wall_ahead

    def set_clock(self, seconds: float) -> None:
        self.wall_ahead += seconds
        self.clock_set_at = self.now()

    def begins(self, row: str) -> None:
        self.in_flight[row] += 1
        now, name = self.now(), row.split()[0]
        if self.stopped_at is not None:
            self.faults.append(f"{row} was asked at {now}, after the stop at {self.stopped_at}")
        if name in self.cancelled_at and now > self.cancelled_at[name]:
            self.faults.append(f"{row} was asked at {now}, after the cancel at {self.cancelled_at[name]}")
        if name in self.paused_at and now > self.paused_at[name]:
            self.faults.append(f"{row} was asked at {now}, after the pause at {self.paused_at[name]}")
        if self.wall() > self.window_end[name] + NOTICE and now > self.clock_set_at + NOTICE:
            self.faults.append(f"{row} was asked at {self.wall()}, after the window's end at {self.window_end[name]}")
        if name in self.taken_at and now > self.taken_at[name] + NOTICE_LEASE:
            self.faults.append(f"{row} was asked at {now}, after the lease was lost at {self.taken_at[name]}")
        if sum(self.in_flight.values()) > 3:
            self.faults.append(f"{+self.in_flight} are too many at a time")
        if len({each.split()[0] for each in +self.in_flight}) > PLACES[Stage.EXECUTION]:
            self.faults.append(f"{+self.in_flight} are of too many batches")

    def name_of(self, batch: BatchRecord | Batch) -> str:
        return self.first_input.get(batch.input_file_id, batch.input_file_id)

    def ends(self, row: str) -> None:
        self.in_flight[row] -= 1

    def complains(self, message: str, **details: object) -> None:
        """Something was logged as an error."""
        if message in UNEXPECTED:
            self.faults.append(f"{message}: {details}")

    def store(self) -> Storage:
        """The storage, with an eye on what is asked of it."""
        metadata = self.opened = SqlMetadataStore.at(f"sqlite:///{self.folder / 'test.db'}")
        self._watch(metadata)
        for methods in metadata.files, metadata.blob_writes, metadata.batches, metadata.rows:
            for name in sorted(vars(type(methods))):
                if not name.startswith("_"):
                    setattr(methods, name, self._refusable(getattr(methods, name)))
        return storage_of(metadata, self.blobs)

    def _refusable(self, method: Any) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            if self.now() < self.refuses_until and self.chance.random() < self.refused_share:
                if method.__name__ == "renew":
                    # Who cannot ask does not know.
                    self.taken_at = dict.fromkeys(self.taken_at, self.now())
                raise StorageError("The disk is full: free some space.")
            return await method(*arguments, **options)

        return call

    def _watch(self, metadata: SqlMetadataStore) -> None:
        change, commit, claim = metadata.batches.change, metadata.rows.commit, metadata.batches.claim

        async def watched_change(batch_id: str, changes: dict[str, Any], *, expected: str, **options: Any) -> bool:
            done = await change(batch_id, changes, expected=expected, **options)
            step = expected, changes.get("status", expected)
            allowed = TRANSITIONS | ({("in_progress", "failed")} if self.lost else set())
            if done and step[0] != step[1] and step not in allowed:
                self.faults.append(f"{batch_id} went from {step[0]} to {step[1]}")
            return done

        async def watched_commit(lease: Lease, results: Any) -> None:
            await commit(lease, results)
            seq = lease.batch_seq
            for result in results:
                if (seq, result.line) in self.stored:
                    self.faults.append(f"line {result.line} of batch {seq} has two results")
                self.stored.add((seq, result.line))

        async def watched_claim(*arguments: Any) -> Claim | None:
            made = await claim(*arguments)
            if made is not None:
                self.taken_at.pop(self.name_of(made.batch), None)
            return made

        metadata.batches.change = watched_change  # type: ignore[method-assign]
        metadata.rows.commit = watched_commit  # type: ignore[method-assign]
        watched_claim.__name__ = "claim"
        metadata.batches.claim = watched_claim  # type: ignore[method-assign]


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
        self.service = BatchService(self.storage, self.supervisor, lambda: frozenset({CHAT, SCORE}))
        world.refuses_until = 0.0
        world.taken_at.clear()
        await self.storage.metadata.servers.leave_all()
        await self.storage.metadata.batches.release_all()
        running = asyncio.create_task(self.supervisor.run())
        await story(self)
        grace = world.chance.choice((0.0, 0.5, 20.0, 90.0))
        world.stopped_at = world.now()
        await self.supervisor.stop(grace)
        if world.now() > world.stopped_at + grace + 0.5:
            world.faults.append(f"a stop with a grace of {grace} took {world.now() - world.stopped_at} seconds")
        if +world.in_flight:
            world.faults.append(f"after the stop {+world.in_flight} were in flight")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        # Whatever is done by now may be about to say so.
        await asyncio.sleep(0.5)
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            world.faults.append(f"after the stop there were left: {left}")
        await self.storage.metadata.stop()

    async def make_batch(self) -> None:
        world, chance = self.world, self.world.chance
        name = f"batch{len(world.rows)}"
        endpoint = chance.choice((CHAT, CHAT, SCORE))
        kinds = chance.choices(list(KINDS), list(KINDS.values()), k=chance.randint(1, 9))
        rows = [self._line(endpoint, name, number, kind) for number, kind in enumerate(kinds)]
        data = jsonl(rows) + (b"no JSON\n" if chance.random() < 0.05 else b"")
        window = chance.choice(("1m", "1h", "24h"))
        world.rows[name] = [row["custom_id"] for row in rows]
        world.window_end[name] = world.wall() + {"1m": 60, "1h": 3600, "24h": DAY}[window] + 1

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        async with self.storage.new_blobs.begin(file_blob(name)) as write:
            await write(chunks())
            await self.storage.metadata.files.add(FileRecord(name, len(data), 1, "in.jsonl", "batch"))
        batch = await self.service.create(
            CreateBatchRequest(
                name, endpoint, window, priority=chance.randint(-1, 1), reuse_answers=chance.random() < 0.3
            )
        )
        assert batch.expires_at is not None
        world.window_end[name] = batch.expires_at

    def _line(self, endpoint: str, name: str, number: int, kind: str) -> dict[str, Any]:
        shared = SHARED if self.world.shares_prefix else ""
        text = f"{shared}#{name} {'' if kind == 'same' else number} {kind};"
        line = chat_line(f"row-{number}", text, temperature=0)
        if endpoint == SCORE:
            line["url"] = SCORE
            items = ["a", "b"] if number % 2 else ["a"]
            line["body"] = {"model": "simulated", "query": text, "items": items, "labels": ["yes", "no"]}
        return line

    async def misfortune(self) -> None:
        """Something happens; some of it passes by itself."""
        world, chance = self.world, self.world.chance
        match chance.choice(MISFORTUNES):
            case "tidy":
                await tidy(self.storage, int(world.wall()))
            case "cancel":
                await self._cancel_one()
            case "pause":
                await self._pause_one()
            case "resume":
                await self._resume_one()
            case "priority":
                for batch in (await self._unfinished())[:1]:
                    await self.service.set_priority(batch.id, chance.randint(-5, 5))
            case "retry" if len(world.first_input) < 5:
                await self._retry_one()
            case "away":
                self.engine.go_away(chance.choice((0.1, 5, 40)))
            case "crash":
                self.engine.crash()
            case "disk":
                world.refuses_until = world.now() + chance.choice((0.1, 5, 70))
                world.refused_share = chance.choice((0.3, 1.0))
            case "create" if len(world.rows) < 6:
                await self.make_batch()
            case "take":
                await self._take_one()
            case "clock":
                world.set_clock(chance.choice((DAY, -DAY, 4_000, -4_000, 600, -600, 45, -45)))
            case "delete" if world.rows:
                await self.storage.metadata.files.delete(chance.choice(list(world.rows)))
            case "lose" if world.rows and chance.random() < 0.3:
                name = chance.choice(list(world.rows))
                world.lost.add(name)
                world.blobs.kept.pop(file_blob(name), None)

    async def _cancel_one(self) -> None:
        unfinished = await self._unfinished()
        if unfinished:
            name = self.world.name_of(await self.service.cancel(self.world.chance.choice(unfinished).id))
            self.world.cancelled_at.setdefault(name, self.world.now())

    async def _pause_one(self) -> None:
        unfinished = await self._unfinished()
        if unfinished:
            name = self.world.name_of(await self.service.pause(self.world.chance.choice(unfinished).id))
            self.world.paused_at.setdefault(name, self.world.now())

    async def _resume_one(self) -> None:
        unfinished = await self._unfinished()
        if unfinished:
            await self.resume(self.world.chance.choice(unfinished))

    async def resume(self, batch: BatchRecord) -> None:
        self.world.paused_at.pop(self.world.name_of(batch), None)
        await self.service.resume(batch.id)

    async def _retry_one(self) -> None:
        """Sometimes two at once."""
        world = self.world
        ended = [batch for batch in await all_batches(self.storage) if batch.status in TERMINAL_STATUSES]
        if not ended:
            return
        batch = world.chance.choice(ended)
        name = world.name_of(batch)
        # What was cancelled or paused is over, and the new batch has a window of its own.
        world.cancelled_at.pop(name, None)
        world.paused_at.pop(name, None)
        world.window_end[name] = world.wall() + 2 * DAY
        tries = [self.service.retry(batch.id) for _ in range(world.chance.choice((1, 1, 2)))]
        made = await asyncio.gather(*tries, return_exceptions=True)
        for each in made:
            if isinstance(each, Batch):
                assert each.expires_at is not None
                world.first_input.setdefault(each.input_file_id, name)
                world.window_end[name] = each.expires_at
            elif not isinstance(each, ApiError | StorageError):
                raise each

    async def _take_one(self) -> None:
        """Another server takes a batch, and gives it back after some time."""
        world = self.world
        unfinished = await self._unfinished()
        if not unfinished:
            return
        batch, seconds = world.chance.choice(unfinished), world.chance.choice((0.1, 15, 50))
        write = self.storage.metadata._database.write
        of = batches.c.id == batch.id
        taken = {
            "lease_owner": "another", "lease_until": world.wall() + seconds,
            "lease_generation": batches.c.lease_generation + 1,
        }  # fmt: skip
        await write(lambda connection: connection.execute(update(batches).where(of).values(taken)))
        world.taken_at[world.name_of(batch)] = world.now()
        await asyncio.sleep(seconds)
        given_back = {"lease_owner": None, "lease_until": 0}
        is_taken = batches.c.lease_owner == "another"
        await write(lambda connection: connection.execute(update(batches).where(of, is_taken).values(given_back)))
        world.taken_at.pop(world.name_of(batch), None)

    async def _unfinished(self) -> list[BatchRecord]:
        return [batch for batch in await all_batches(self.storage) if batch.status not in TERMINAL_STATUSES]


async def troubles(process: Process) -> None:
    world = process.world
    chance = world.chance
    for number in range(chance.randint(2, 9)):
        try:
            await (process.misfortune() if number or world.rows else process.make_batch())
        except (ApiError, StorageError):
            # Whoever asked is told that it did not work.
            continue
        await asyncio.sleep(chance.choice((0, 0.001, 0.01, 0.05, 0.3, 3, 30)))
    await asyncio.sleep(chance.choice((0, 0.002, 0.02, 0.2, 2)))


async def until_all_is_done(process: Process) -> None:
    while unfinished := await process._unfinished():
        for batch in unfinished:
            if batch.paused_at is not None:
                with contextlib.suppress(ApiError):
                    await process.resume(batch)
        await asyncio.sleep(5)
    # What comes after the end of a batch is part of it.
    await asyncio.sleep(1)
    await tidy(process.storage, int(process.world.wall()))


async def all_batches(storage: Storage) -> list[BatchRecord]:
    return list((await storage.metadata.batches.page(after=None, limit=100)).records)
