"""What a batch stands on: two servers, one PostgreSQL, one bucket of an S3 server, replicas on a Ray cluster of three
nodes, all of them processes of this machine; and how each is hit."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from chaos.schedule import Step, What
from postgres_server import PostgresServer
from ray_cluster import RayCluster
from s3_server import BUCKET, S3Server
from server_process import ServerProcess

REPLICAS = 4
#: Rows at a time of a replica, and seconds that each takes.
_SLOTS, _LATENCY = 8, 0.1
#: Seconds, the only time that no count of rows can tell: nothing is counted meanwhile.
_DATABASE_HANGS = 3.0


class Stage:
    """``postgres`` and ``store`` are its own; ``cluster`` too."""

    def __init__(self, folder: Path, postgres: PostgresServer, store: S3Server, cluster: RayCluster) -> None:
        self.url = postgres.new_database()
        self.journal = folder / "asked"
        self._postgres, self._store, self._cluster = postgres, store, cluster
        shared = [
            "--database", self.url, "--blobs", f"s3://{BUCKET}/chaos", "--engine", "ray", "--replicas", str(REPLICAS),
            "--replica-engine", "simulated", "--ray-address", cluster.address, "-O", "replica_cpus=1",
            "-O", f"slots={_SLOTS}", "-O", f"latency={_LATENCY}", "-O", f"asked_journal={self.journal}",
        ]  # fmt: skip
        self.servers = [ServerProcess(folder / f"data-{number}", *shared) for number in range(2)]
        #: What lasts, by the step that ends it: who that is.
        self._hit: dict[tuple[What, int], Any] = {}
        self._nodes = list(cluster.others)
        #: Nodes and servers that nobody is to replace yet.
        self._missing: list[Any] = []
        #: How often a server was.
        self.started_again = 0

    def __enter__(self) -> Stage:
        for server in self.servers:
            server.spawn()
        for server in self.servers:
            server.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            if server.alive():
                for each in _family(server):
                    _signal(each, signal.SIGCONT)
        for server in self.servers:
            if server.alive():
                server.kill()
        for each in self._hit.values():
            for process in each if isinstance(each, list) else []:
                _signal(process, signal.SIGCONT)

    def take(self, step: Step) -> str | None:
        """Returns which one was hit, in words; None for a step that ends another."""
        doing = {
            What.KILL_REPLICA: self._kill_replica,
            What.HANG_REPLICA: self._hang_replica,
            What.KILL_NODE: self._kill_node,
            What.HANG_NODE: self._hang_node,
            What.KILL_DRIVER: self._kill_driver,
            What.HANG_DRIVER: self._hang_driver,
            What.KILL_SERVER: self._kill_server,
            What.HANG_SERVER: self._hang_server,
        }
        match step.what:
            case What.RESTART_DATABASE:
                self._postgres.restart(signal.SIGINT)
            case What.CRASH_DATABASE:
                self._postgres.restart(signal.SIGKILL)
            case What.HANG_DATABASE:
                self._postgres.suspend()
                time.sleep(_DATABASE_HANGS)
                self._postgres.resume()
            case What.HANG_HEAD:
                self._last(What.WAKE_HEAD, step.target, self._cluster.head_processes(), signal.SIGSTOP)
            case What.CUT_CONNECTIONS:
                self.ask(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'gristmill'"
                )
            case What.CRASH_STORE:
                self._store.kill()
                self._store.spawn()
            case What.KILL_HEAD:
                self._cluster.kill_head()
                self._cluster.restart_head()
            case What.WAKE_REPLICA | What.WAKE_NODE | What.WAKE_HEAD | What.WAKE_SERVER:
                for process in self._hit.pop((step.what, step.target)):
                    _signal(process, signal.SIGCONT)
                return None
            case What.START_SERVER | What.REPLACE_NODE:
                self._missing.remove(self._hit.pop((step.what, step.target)))
                self.mend()
                return None
            case _:
                return doing[step.what](step.target)
        return ""

    def mend(self) -> None:
        """As whatever watches over servers and nodes does: one that has ended is started again, or replaced. To be
        called again and again, in the main thread, as Ray asks."""
        self._nodes = [node for node in self._nodes if self._cluster.alive(node)]
        nodes_missing = sum(each not in self.servers for each in self._missing)
        while len(self._nodes) + nodes_missing < len(self._cluster.others):
            try:
                self._nodes.append(self._cluster.add_node())
            except Exception:
                # Ray gives up a start that takes too long; the next call tries again.
                break
        for server in self.servers:
            if server not in self._missing and not server.alive():
                self.started_again += 1
                self._start(server)

    def _start(self, server: ServerProcess) -> None:
        server.spawn()

        def watch() -> None:
            with contextlib.suppress(AssertionError):
                server.wait_until_ready()

        threading.Thread(target=watch, daemon=True).start()

    def ask(self, query: str) -> list[tuple[object, ...]]:
        return self._postgres.execute(query, self.url.rpartition("/")[2])

    def runner(self) -> ServerProcess | None:
        """Whoever holds the lease on the only batch."""
        found = self.ask("SELECT lease_owner FROM batches WHERE lease_until > extract(epoch from clock_timestamp())")
        owners = [str(owner) for (owner,) in found if owner is not None]
        return next((server for server in self.servers for owner in owners if f":{server.pid}:" in owner), None)

    def _server(self, target: int) -> ServerProcess:
        runner: ServerProcess = _wait_for(self.runner, "somebody to run the batch")
        others = [server for server in self.servers if server is not runner]
        return runner if _of_runner(target) else others[0]

    def _kill_replica(self, target: int) -> str:
        pids = _wait_for(self._cluster.replica_pids, "a replica")
        _signal(psutil.Process(pids[target % len(pids)]), signal.SIGKILL)
        return f"one of {len(pids)}"

    def _hang_replica(self, target: int) -> str:
        pids = _wait_for(self._cluster.replica_pids, "a replica")
        self._last(What.WAKE_REPLICA, target, [psutil.Process(pids[target % len(pids)])], signal.SIGSTOP)
        return f"one of {len(pids)}"

    def _kill_node(self, target: int) -> str:
        node = self._nodes.pop(target % len(self._nodes))
        self._missing.append(node)
        self._hit[What.REPLACE_NODE, target] = node
        self._cluster.kill_node(node)
        return ""

    def _hang_node(self, target: int) -> str:
        node = self._nodes[target % len(self._nodes)]
        self._last(What.WAKE_NODE, target, self._cluster.processes(node), signal.SIGSTOP)
        return ""

    def _kill_driver(self, target: int) -> str:
        for each in _drivers(self._server(target)):
            _signal(each, signal.SIGKILL)
        return self._role(target)

    def _hang_driver(self, target: int) -> str:
        for each in _drivers(self._server(target)):
            _signal(each, signal.SIGSTOP)
        return self._role(target)

    def _kill_server(self, target: int) -> str:
        server = self._server(target)
        server.kill()
        self._missing.append(server)
        self._hit[What.START_SERVER, target] = server
        return self._role(target)

    def _hang_server(self, target: int) -> str:
        family = _family(self._server(target))
        alone = target // 4 % 2 == 0
        self._last(What.WAKE_SERVER, target, family[:1] if alone else family, signal.SIGSTOP)
        return f"{self._role(target)}{'' if alone else ', with its Ray client'}"

    @staticmethod
    def _role(target: int) -> str:
        return "which runs the batch" if _of_runner(target) else "the other"

    def _last(self, end: What, target: int, processes: list[psutil.Process], number: signal.Signals) -> None:
        for each in processes:
            _signal(each, number)
        self._hit[end, target] = processes


def _of_runner(target: int) -> bool:
    return target % 4 != 0


def _family(server: ServerProcess) -> list[psutil.Process]:
    """The server first, then its Ray client and whatever else it has started; nobody where it is dead."""
    if not server.alive():
        return []
    found = psutil.Process(server.pid)
    return [found, *found.children(recursive=True)]


def _drivers(server: ServerProcess) -> list[psutil.Process]:
    return [each for each in _family(server) if "gristmill.engines.ray.driver" in each.cmdline()]


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _wait_for(look: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Of this process and those that it starts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
