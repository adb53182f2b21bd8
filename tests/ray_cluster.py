"""A real Ray cluster of several nodes on this machine, each its own processes, to be killed."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed: pip install 'gristmill[ray]'")

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

_SMALL: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80 * 2**20}


class RayCluster:
    def __init__(self, nodes: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            #: The same for every head.
            self._head = {**_SMALL, "include_dashboard": False, "gcs_server_port": free.getsockname()[1]}
        self._cluster = Cluster(initialize_head=True, connect=False, head_node_args=self._head)
        self.address: str = self._cluster.address
        self.others = [self.add_node() for _ in range(nodes - 1)]

    def add_node(self) -> Any:
        return self._cluster.add_node(wait=False, **_SMALL)

    def kill_node(self, node: Any) -> None:
        """At once, with all that runs on it."""
        _send(self.processes(node), signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """With its node."""
        _send(self.processes(self._cluster.head_node), signal.SIGKILL)
        self._cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)

    def restart_head(self) -> None:
        """Another one, at the same address, that knows nothing of the one before."""
        self._cluster.head_node = None
        self._cluster.add_node(**self._head)
        assert self._cluster.address == self.address

    def processes(self, node: Any) -> list[psutil.Process]:
        """A node's own, and what they have started."""
        found = []
        for each in node.live_processes():
            with suppress(psutil.Error):
                process = psutil.Process(each[1].pid)
                found += [process, *process.children(recursive=True)]
        return found

    def head_processes(self) -> list[psutil.Process]:
        return self.processes(self._cluster.head_node)

    def alive(self, node: Any) -> bool:
        return any(kind == "raylet" for kind, _ in node.live_processes())

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


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for each in processes:
        with suppress(psutil.Error):
            each.send_signal(number)
