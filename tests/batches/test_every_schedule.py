"""A batch's life under thousands of schedules: whatever happens between any two of its steps, the contract holds.

Each schedule is a seed. It makes a few batches and lets things happen to them at moments of its own choosing: cancels,
pauses, other priorities, retries, ends of windows, clocks that are set, servers that are stopped or killed and started
again, leases that another server takes, an engine that goes away, crashes or cuts rows off, a disk that refuses, files
that are deleted or lost. Then all is well again, and everything has to come to its end. Replay one with
SCHEDULE_SEED=number.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from simulated_server import BEGIN, LOOK, WATCH, Process, World, all_batches, troubles, until_all_is_done

from gristmill import tasks
from gristmill.batches import execution, heartbeat, places, runner, supervisor, validation
from gristmill.batches.places import PLACES
from gristmill.dispatch import dispatcher
from gristmill.storage.records import (
    TERMINAL_STATUSES,
    BatchRecord,
    Stage,
    file_blob,
)
from gristmill.storage.sql import sqlite
from gristmill.storage.sql.store import SqlMetadataStore
from seeded_loop import live

SCHEDULES = int(os.environ.get("SCHEDULES", "2000"))
FIRST = int(os.environ.get("SCHEDULE_SEED", "0"))
#: Schedules a test: a failure names its seed, the others go on.
GROUP = 100


class _Log:
    def __init__(self, world: World) -> None:
        self.error = world.complains

    def info(self, *_: object, **__: object) -> None: ...

    warning = info


def live_through(seed: int, folder: Path, template: Path, patch: pytest.MonkeyPatch) -> World:
    world = World(seed, folder, template)
    random.seed(seed)
    for module in (dispatcher, execution, heartbeat, runner, supervisor, validation, tasks):
        patch.setattr(module, "log", _Log(world))
    patch.setattr(runner, "_WATCH_SECONDS", WATCH)
    patch.setattr(supervisor, "LOOK_SECONDS", LOOK)
    if world.chance.random() < 0.5:
        # Batches wait for each other, and give way.
        for stage in Stage:
            patch.setitem(PLACES, stage, world.chance.choice((1, 1, 2)))
        patch.setattr(places, "TURN_SECONDS", world.chance.choice((5.0, 30.0)))
        patch.setattr(supervisor, "GIVE_WAY_GRACE", world.chance.choice((0.5, 60.0)))
        patch.setattr(supervisor, "LOOK_SECONDS", 5.0)
    now = BEGIN
    for story in [troubles] * world.chance.randint(1, 3) + [until_all_is_done]:
        kill_at = world.chance.randint(5, 3000) if story is troubles and world.chance.random() < 0.5 else None
        world.stopped_at = None
        world.in_flight.clear()
        process = Process(world)

        async def main(process: Process = process, story: Any = story) -> None:
            loop = asyncio.get_running_loop()
            world.now = loop.time
            patch.setattr(time, "time", world.wall)
            patch.setattr(time, "monotonic", loop.time)
            async with asyncio.timeout(5 * 86_400):
                await process.run(story)

        now, killed = live(main, world.chance, now, kill_at)
        if killed and world.opened is not None:
            # The kernel would close what a killed process has open.
            world.opened._database._engine.dispose()
        now += 0.01
    return world


def judge(world: World) -> None:
    """Every batch is over, its end is to be told once, each of its lines is in exactly one file, and nothing else is
    left."""

    async def main() -> None:
        storage = world.store()
        files = await storage.metadata.files.page(after=None, limit=100, newest_first=True, purpose=None)
        kept = {file.id for file in files.records} - world.lost
        assert set(world.blobs.kept) == {file_blob(file_id) for file_id in kept}
        records = {record.id: record for record in await all_batches(storage)}
        told = await storage.metadata.deliveries.page(after=None, limit=100)
        ends = sorted((each.batch_id, each.type, each.created_at) for each in told.records)
        assert ends == sorted((each.id, f"batch.{each.status}", ended_at(each)) for each in records.values())
        for record in records.values():
            assert record.status in TERMINAL_STATUSES and record.paused_at is None
            assert await storage.metadata.rows.not_succeeded(record.seq, 0, 99) == []
            rows = rows_of(world, record, records)
            output, errors = lines(world, record.output_file_id), lines(world, record.error_file_id)
            if record.status == "failed":
                assert record.errors
                if record.in_progress_at is None:
                    assert not output and not errors
                    continue
                assert record.input_file_id in world.lost
            assert [line["custom_id"] for line in output] == [row for row in rows if row in {*map(ident, output)}]
            assert sorted(map(ident, output + errors)) == sorted(rows)
            never_ran = {f"batch_{record.status}", "input_file_lost" if record.status == "failed" else None}
            unrun = [line for line in errors if line["error"] and line["error"]["code"] in never_ran]
            assert {line["error"]["code"] for line in errors if line["error"]} <= {*never_ran, "request_timeout"}
            assert record.total == len(rows) and record.completed == len(output)
            assert record.failed == len(errors) - len(unrun)
            assert not (record.status == "completed" and unrun)
        await storage.metadata.stop()

    asyncio.run(main())
    assert not world.faults, world.faults


def rows_of(world: World, record: BatchRecord, records: dict[str, BatchRecord]) -> list[str]:
    """The ids of its rows: of a retry, those that the batch before it has not answered."""
    if record.retry_of is None:
        return world.rows[record.input_file_id]
    before = records[record.retry_of]
    assert before.retried_by == record.id and before.status in TERMINAL_STATUSES
    if before.input_file_id == record.input_file_id:
        # It was refused as a whole.
        return rows_of(world, before, records)
    return [ident(line) for line in lines(world, before.error_file_id)]


def ended_at(record: BatchRecord) -> int:
    return int(getattr(record, f"{record.status}_at"))


def ident(line: dict[str, Any]) -> str:
    return str(line["custom_id"])


def lines(world: World, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [json.loads(line) for line in world.blobs.kept[file_blob(file_id)].splitlines()]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, made once."""
    path = tmp_path_factory.mktemp("template") / "test.db"

    async def main() -> None:
        store = SqlMetadataStore.at(f"sqlite:///{path}")
        await store.start()
        await store.stop()

    asyncio.run(main())
    return path


@pytest.fixture
def quick_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every simulated process opens its database anew; neither disk nor SQL need be as new."""
    configure, create = sqlite._configure, sqlite._create_engine
    compiled: dict[Any, Any] = {}
    dialects: list[Any] = []

    def configure_for_memory(connection: Any, record: Any) -> None:
        configure(connection, record)
        # The simulated process dies; the machine does not.
        connection.execute("PRAGMA synchronous = OFF")

    def create_with_known_statements(url: str) -> Any:
        engine = create(url)
        dialects.append(engine.dialect)
        engine.dialect = engine.pool._dialect = dialects[0]  # type: ignore[assignment]
        return engine.execution_options(compiled_cache=compiled)

    monkeypatch.setattr(sqlite, "_configure", configure_for_memory)
    monkeypatch.setattr(sqlite, "_create_engine", create_with_known_statements)


@pytest.mark.parametrize("first", range(FIRST, FIRST + SCHEDULES, GROUP))
@pytest.mark.usefixtures("quick_database")
def test_whatever_happens_between_any_two_steps_the_contract_holds(first: int, template: Path) -> None:
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
