"""Deliveries under many schedules: kills and stops between any two awaits, receivers and a disk that fail, clocks that
jump. Each end arrives, with one id, and nothing that is known to have arrived is sent again.

Replay one with DELIVERY_SEED=number.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from receiver import SECRET

from gristmill.notify import notifier as notifying
from gristmill.notify.notifier import PLACES_A_TARGET, Notifier
from gristmill.notify.sender import SendOutcome
from gristmill.storage.errors import DiskFull
from gristmill.storage.records import BatchRecord, DeliveryRecord, WebhookRecord
from gristmill.storage.sql.store import SqlMetadataStore
from seeded_loop import live

SCHEDULES = 80
FIRST = int(os.environ.get("DELIVERY_SEED", "0"))
BEGIN = 1_800_000_000.0
OWN = WebhookRecord("https://own/", SECRET, "https://own:443")
TARGETS = [OWN, *(WebhookRecord(f"https://{name}/", SECRET, f"https://{name}:443") for name in "ab")]


class Quiet:
    def info(self, *_: object, **__: object) -> None: ...

    warning = error = info


class World:
    """What outlives a process."""

    def __init__(self, seed: int, path: Path) -> None:
        self.chance = random.Random(seed)
        self.path = path
        self.offset = BEGIN
        self.well = False
        #: What arrived and was answered with a 2xx, by target and event.
        self.arrived: Counter[tuple[str, str]] = Counter()
        #: What storage has said is stored of that.
        self.known: set[tuple[str, str]] = set()
        self.batches = 0
        self.faults: list[str] = []

    def store(self) -> SqlMetadataStore:
        store = SqlMetadataStore.at(f"sqlite:///{self.path}")
        record = store.deliveries.record

        async def watched(delivery: DeliveryRecord, changes: dict[str, Any]) -> bool:
            if not self.well and self.chance.random() < 0.1:
                raise DiskFull("full")
            stored = await record(delivery, changes)
            if stored and changes["status"] == "delivered":
                self.known.add(key_of(delivery))
            return stored

        store.deliveries.record = watched  # type: ignore[method-assign]
        return store


def key_of(delivery: DeliveryRecord) -> tuple[str, str]:
    return (delivery.webhook or OWN).url, delivery.event_id


class Receivers:
    """All of them, as one process reaches them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._now: Counter[str] = Counter()

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> SendOutcome:
        world, chance = self._world, self._world.chance
        key = url, headers["webhook-id"]
        self._now[url] += 1
        if self._now[url] > PLACES_A_TARGET:
            world.faults.append(f"{self._now[url]} requests to {url} at a time")
        if key in world.known:
            world.faults.append(f"{key} was sent again")
        try:
            await asyncio.sleep(chance.choice((0, 0.001, 0.3, 15)))
            status = 200 if world.well else chance.choice((200, 200, 204, 302, 500, None))
            if status in (200, 204):
                world.arrived[key] += 1
            await asyncio.sleep(chance.choice((0, 0.001, 0.3)))
            return SendOutcome(status, None if status in (200, 204) else "No.")
        finally:
            self._now[url] -= 1


async def live_once(world: World, last: bool) -> None:
    store, chance = world.store(), world.chance
    notifier = Notifier(store.deliveries, Receivers(world), OWN)
    working = asyncio.create_task(notifier.run())
    for _ in range(0 if last else chance.randint(1, 6)):
        await asyncio.sleep(chance.choice((0, 0.5, 3, 60)))
        match chance.choice(("end", "end", "clock", "again")):
            case "end":
                world.batches += 1
                name, webhook = f"batch_{world.batches}", chance.choice([None, *TARGETS[1:]])
                fields = ("/v1/chat/completions", "file-1", "24h", "in_progress", 1, 2**40)
                await store.batches.add(BatchRecord(0, name, *fields, webhook=webhook))
                await store.batches.change(name, {"status": "completed", "completed_at": 9}, expected="in_progress")
            case "clock":
                world.offset += chance.choice((-86_400, 86_400, -600, 600))
            case "again":
                page = await store.deliveries.page(after=None, limit=1)
                for delivery in page.records:
                    world.known.discard(key_of(delivery))
                    await store.deliveries.send_again(delivery.id)
    while last and (await store.deliveries.page(after=None, limit=1, status="pending")).records:
        await asyncio.sleep(60)
    await notifier.stop(chance.choice((0.0, 5.0)))
    await working
    await store.stop()


def live_through(seed: int, path: Path, patch: pytest.MonkeyPatch) -> None:
    world = World(seed, path)
    random.seed(seed)
    now = 0.0
    lives = world.chance.randint(1, 4)
    for number in range(lives + 1):
        last = world.well = number == lives
        kill_at = None if last or world.chance.random() < 0.4 else world.chance.randint(5, 1_500)

        async def main(last: bool = last) -> None:
            loop = asyncio.get_running_loop()
            patch.setattr(time, "time", lambda: loop.time() + world.offset)
            await live_once(world, last)

        now, _ = live(main, world.chance, now, kill_at)

    async def judge() -> None:
        store = world.store()
        page = await store.deliveries.page(after=None, limit=1_000)
        await store.stop()
        assert not world.faults, world.faults
        # A batch may have been added by a process that was killed before it ended it.
        assert world.batches - lives <= len({each.batch_id for each in page.records}) <= world.batches
        for each in page.records:
            assert each.status == "delivered" and world.arrived[key_of(each)] >= 1, each
        assert set(world.arrived) == {key_of(each) for each in page.records}

    asyncio.run(judge())


def test_whatever_happens_between_any_two_steps_each_end_arrives() -> None:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        template = Path(folder, "template.db")

        async def make() -> None:
            store = SqlMetadataStore.at(f"sqlite:///{template}")
            await store.start()
            await store.stop()

        asyncio.run(make())
        for seed in range(FIRST, FIRST + (1 if "DELIVERY_SEED" in os.environ else SCHEDULES)):
            path = Path(folder, f"{seed}.db")
            shutil.copy(template, path)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(notifying, "log", Quiet())
                try:
                    live_through(seed, path, patch)
                except BaseException as error:
                    error.add_note(f"in schedule {seed}: replay it with DELIVERY_SEED={seed}")
                    raise
