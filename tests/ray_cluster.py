"""A real Ray cluster of several nodes on this machine, each its own processes, to be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed: pip install 'gristmill[ray]'")

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

_SMALL: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}


class RayCluster:
    def __init__(self, nodes: int) -> None:
        self._cluster = Cluster(initialize_head=True, connect=False, head_node_args=_SMALL)
        self.address: str = self._cluster.address
        self.others = [self.add_node() for _ in range(nodes - 1)]

    def add_node(self) -> Any:
        small = {key: value for key, value in _SMALL.items() if key != "include_dashboard"}
        return self._cluster.add_node(wait=False, **small)

    def kill_node(self, node: Any) -> None:
        """At once, with all that runs on it."""
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        self._cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)

    def replica_pids(self) -> list[int]:
        """The processes that this cluster's replicas are."""
        found = []
        for process in psutil.process_iter(["pid", "name", "cmdline"]):
            if process.info["cmdline"] and process.info["cmdline"][0].startswith("ray::Replica"):
                with suppress(psutil.Error):
                    parents = " ".join(" ".join(each.cmdline()) for each in process.parents()[:1])
                    if f"--gcs-address={self.address}" in parents:
                        found.append(process.pid)
        return sorted(found)

    def stop(self) -> None:
        with suppress(Exception):
            self._cluster.shutdown()
        self._cluster.head_node = None


@contextmanager
def ray_cluster(nodes: int = 1) -> Iterator[RayCluster]:
    cluster = RayCluster(nodes)
    try:
        yield cluster
    finally:
        cluster.stop()


def stop_or_kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
