"""A set-up that cannot work is told at the start, in one sentence that says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from ray._raylet import GcsClient

from gristmill.user_error import UserError
from ray_cluster import RayCluster, ray_cluster
from ray_pool import row, started


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as running:
        yield running


async def sentence(address: str, **options: object) -> str:
    with pytest.raises(UserError) as told:
        async with started(address, "2", **options):
            pass
    said = str(told.value)
    assert "\n" not in said and "Traceback" not in said
    return said


async def test_an_address_where_no_cluster_is():
    assert "cannot be reached (connection refused)" in await sentence("127.0.0.1:1")
    assert "write it like 10.0.0.1:6379" in await sentence("nonsense")


async def test_a_machine_that_cannot_start_a_process_more(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert "cannot be started: No such file or directory" in await sentence("127.0.0.1:1")


async def test_a_cluster_without_the_wanted_gpus_says_what_it_has_and_what_was_asked(cluster):
    said = await sentence(cluster.address, replica_gpus=2, placement_wait=2)
    assert "no place for a replica with 0 CPUs and 2 GPUs for 2 seconds: it has 2 CPUs (2 free) and 0 GPUs" in said
    async with started(cluster.address, "1") as engine:
        assert await engine.complete(row(1))


async def test_a_replica_engine_that_cannot_start_says_why(cluster):
    said = await sentence(cluster.address, journal="/nonexistent/journal")
    assert said.startswith("A replica's simulated engine cannot start: FileNotFoundError")
    assert cluster.replica_pids() == []


async def test_fewer_replicas_than_wanted_are_enough_where_so_few_were_asked_for(cluster):
    async with started(cluster.address, "1:4", replica_cpus=1, placement_wait=30) as engine:
        assert await engine.complete(row(1))


async def test_a_cluster_of_another_version_of_ray_or_python():
    with ray_cluster() as other:
        versions = json.dumps({"ray_version": "2.9.0", "python_version": "3.9.1"}).encode()
        GcsClient(address=other.address).internal_kv_put(b"CLUSTER_METADATA", versions, True, b"cluster")
        said = await sentence(other.address)
        assert "has other versions than this machine" in said and "2.9.0" in said and "3.9.1" in said


def test_without_the_package_it_says_what_to_install():
    """In a process that cannot see it."""
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "from gristmill.engines.ray import cluster\n"
        "cluster.connect('127.0.0.1:1')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'gristmill[ray]'" in ended.stderr.splitlines()[-1]
