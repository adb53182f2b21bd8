"""Whoever asks replicas may hang and wake; others may have asked the same by then: what was on its way is not begun."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.isolation import NotYet
from gristmill.engines.ray import driver_process
from gristmill.engines.ray.engine import RayEngine
from ray_cluster import RayCluster, ray_cluster, stop_or_kill
from ray_pool import PATIENCE, all_joined, answered_once, engine_of, row, started

#: Longer than what is on its way is still begun, shorter than anybody is ended for.
HANGS = PATIENCE.stale + 0.6


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as running:
        yield running


def asked(journal: Path) -> list[str]:
    return [line.split()[-1] for line in journal.read_text().splitlines()] if journal.exists() else []


async def kind_of_failure(asking: asyncio.Task[object]) -> ErrorKind:
    with pytest.raises(EngineError) as failed:
        await asking
    # No replica died of it.
    assert failed.value.lost is None
    return failed.value.kind


async def is_asked_again(engine: RayEngine, number: int) -> None:
    """As the dispatcher does."""
    await all_joined(engine, 1)
    while True:
        try:
            await engine.complete(row(number))
            return
        except EngineError as error:
            assert error.kind in (ErrorKind.INTERRUPTED, ErrorKind.UNAVAILABLE)
            await asyncio.sleep(0.2)


async def test_what_waits_for_a_place_when_this_process_hangs_is_given_back(
    cluster: RayCluster, tmp_path: Path
) -> None:
    journal = tmp_path / "asked"
    async with started(cluster.address, "1", slots=1, latency=1.0, asked_journal=journal) as engine:
        first, second = (asyncio.create_task(engine.complete(row(number))) for number in (1, 2))
        while asked(journal) != ["1."]:
            await asyncio.sleep(0.02)
        time.sleep(HANGS)
        assert (await first).choices
        assert await kind_of_failure(second) is ErrorKind.UNAVAILABLE
        assert asked(journal) == ["1."]
        await is_asked_again(engine, 2)


async def test_a_client_process_that_hangs_holds_up_no_stop(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_process, "_LEAVE_SECONDS", 0.5)
    engine = engine_of(cluster.address, "1")
    await engine.start()
    assert engine._driver is not None
    pid = engine._driver.pid
    os.kill(pid, signal.SIGSTOP)
    await engine.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_what_is_about_to_be_sent_when_this_process_hangs_is_not(cluster: RayCluster, tmp_path: Path) -> None:
    journal = tmp_path / "asked"
    async with started(cluster.address, "1", asked_journal=journal) as engine:
        asking = asyncio.create_task(engine.complete(row(1)))
        await asyncio.sleep(0)
        time.sleep(HANGS)
        assert await kind_of_failure(asking) is ErrorKind.INTERRUPTED
        assert asked(journal) == []
        await is_asked_again(engine, 1)


async def test_what_the_client_process_has_not_sent_when_it_hangs_is_not_begun(
    cluster: RayCluster, tmp_path: Path
) -> None:
    journal = tmp_path / "asked"
    async with started(cluster.address, "1", asked_journal=journal) as engine:
        assert engine._driver is not None
        os.kill(engine._driver.pid, signal.SIGSTOP)
        asking = asyncio.create_task(engine.complete(row(1)))
        await asyncio.sleep(HANGS)
        os.kill(engine._driver.pid, signal.SIGCONT)
        assert await kind_of_failure(asking) is ErrorKind.INTERRUPTED
        assert asked(journal) == []
        await is_asked_again(engine, 1)


async def test_a_client_process_that_hangs_is_replaced_and_costs_no_row(cluster: RayCluster) -> None:
    async with started(cluster.address, "2", latency=0.05, slots=8) as engine:

        async def disturb() -> None:
            await asyncio.sleep(1.0)
            assert engine._driver is not None
            os.kill(engine._driver.pid, signal.SIGSTOP)

        came = await answered_once(engine, 1000, disturb)
    assert len(came) == 1000 and set(came.values()) == {1}


async def test_what_waits_to_be_alone_at_a_replica_when_its_process_hangs_is_not_begun(
    cluster: RayCluster, tmp_path: Path
) -> None:
    journal = tmp_path / "asked"
    options = {"latency": HANGS - 0.3, "slots": 1, "asked_journal": journal}
    async with started(cluster.address, "2", **options) as one, started(cluster.address, "2", **options) as other:
        await asyncio.gather(all_joined(one, 2), all_joined(other, 2))
        before = [asyncio.create_task(other.complete(row(number))) for number in (1, 2)]
        while sorted(asked(journal)) != ["1.", "2."]:
            await asyncio.sleep(0.02)
        alone = asyncio.create_task(one.ask_alone(row(3)))
        await asyncio.sleep(PATIENCE.stale / 20)
        # The replicas become free meanwhile.
        time.sleep(HANGS)
        with pytest.raises(NotYet):
            await alone
        await asyncio.gather(*before, return_exceptions=True)
        assert sorted(asked(journal)) == ["1.", "2."]


async def test_a_replica_whose_process_is_killed_is_lost_with_its_row(cluster: RayCluster) -> None:
    async with started(cluster.address, "1", latency=30) as engine:
        asking = asyncio.create_task(engine.complete(row(1)))
        await asyncio.sleep(0.3)
        # Among them may be one of the test before that has not ended yet.
        for pid in cluster.replica_pids():
            stop_or_kill(pid, signal.SIGKILL)
        with pytest.raises(EngineError) as failed:
            await asking
        assert failed.value.kind is ErrorKind.INTERRUPTED and failed.value.lost
