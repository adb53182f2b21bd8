"""Nodes may die and join, and the cluster's head may die: each row is answered exactly once."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from typing import Any

import psutil

from gristmill.engines.ray.engine import RayEngine
from ray_cluster import ray_cluster
from ray_pool import all_joined, answered_once, started


def only_once(came: Counter[str], rows: int) -> bool:
    return len(came) == rows and set(came.values()) == {1}


async def test_a_node_that_is_killed_costs_no_row_and_one_that_joins_takes_its_place():
    with ray_cluster(nodes=2) as cluster:
        async with started(cluster.address, "4", latency=0.05, slots=4, replica_cpus=1) as engine:
            await all_joined(engine, 4)

            async def disturb() -> None:
                await asyncio.sleep(0.5)
                cluster.kill_node(cluster.others[0])
                cluster.add_node()

            assert only_once(await answered_once(engine, 1000, disturb), 1000)
            await all_joined(engine, 4)


async def test_a_head_that_is_started_anew_is_connected_to_though_replicas_of_the_one_before_go_on():
    with ray_cluster(nodes=3) as cluster:
        async with started(cluster.address, "4", latency=0.05, slots=4, replica_cpus=1) as engine:
            await all_joined(engine, 4)
            assert engine._driver is not None
            before = engine._driver.pid

            async def disturb() -> None:
                await asyncio.sleep(0.5)
                cluster.kill_head()
                cluster.restart_head()
                cluster.add_node()

            assert only_once(await answered_once(engine, 1000, disturb), 1000)
            await all_joined(engine, 4)
            assert engine._driver.pid != before


def gcs_of(engine: RayEngine) -> list[psutil.Process]:
    assert engine._driver is not None
    driver = psutil.Process(engine._driver.pid)
    return [each for each in driver.children(recursive=True) if each.name().startswith("gcs_server")]


async def test_the_head_of_a_cluster_of_its_own_may_be_killed():
    async with started("", "2", latency=0.05, slots=4) as engine:
        await all_joined(engine, 2)
        began: list[Any] = []

        async def disturb() -> None:
            await asyncio.sleep(0.5)
            for process in gcs_of(engine):
                began.append(process.pid)
                process.send_signal(signal.SIGKILL)

        assert only_once(await answered_once(engine, 400, disturb), 400)
        assert began
