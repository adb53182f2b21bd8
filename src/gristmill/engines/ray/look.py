"""A look at a cluster: its nodes and its replicas, which can be ended by the way.

In a process of its own (``python -m gristmill.engines.ray.look``), as Ray may wait for minutes for what is no head, and
ends its client's process where it finds that out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from typing import Any

import msgspec

from gristmill.engines.ray import cluster
from gristmill.extras import require
from gristmill.user_error import UserError

_PATIENCE = 60.0
#: For a replica to say how many use it; it may have no place yet.
_ASK_SECONDS = 3.0


class NodeFacts(msgspec.Struct, frozen=True):
    name: str
    alive: bool
    cpus: float
    gpus: float


class ReplicaUse(msgspec.Struct, frozen=True):
    """``users``: None where it does not answer, as one does that has no place yet."""

    name: str
    users: int | None


class ClusterFacts(msgspec.Struct, frozen=True):
    """``free`` are those CPUs and GPUs that nothing has reserved."""

    nodes: list[NodeFacts]
    free: dict[str, float]
    replicas: list[ReplicaUse]


class Failure(msgspec.Struct, frozen=True):
    sentence: str


class _Seen(msgspec.Struct, frozen=True):
    facts: ClusterFacts | None = None
    failure: Failure | None = None


def look(address: str, end_replicas: bool = False) -> ClusterFacts:
    """The replicas are those found, before they were ended. Raises UserError."""
    command = [sys.executable, "-m", "gristmill.engines.ray.look", address, *(["end"] if end_replicas else [])]
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_PATIENCE)
        seen = msgspec.json.decode(ended.stdout, type=_Seen)
    except (subprocess.TimeoutExpired, msgspec.DecodeError):
        raise UserError(f"Nothing at {address} answered as a Ray cluster's head: is this its port?") from None
    if seen.facts is None:
        raise UserError(seen.failure.sentence if seen.failure else "The cluster said nothing.")
    return seen.facts


def main() -> None:
    target = os.dup(1)
    os.dup2(2, 1)
    address, *end = sys.argv[1:]
    try:
        cluster.connect(address)
        seen = _Seen(facts=asyncio.run(_look(bool(end))))
    except UserError as error:
        seen = _Seen(failure=Failure(str(error)))
    os.write(target, msgspec.json.encode(seen))


async def _look(end: bool) -> ClusterFacts:
    ray = require("ray", "ray")
    nodes = []
    for node in ray.nodes():
        has = node["Resources"]
        nodes.append(NodeFacts(node["NodeManagerHostname"], node["Alive"], has.get("CPU", 0), has.get("GPU", 0)))
    actors = cluster.replicas()
    users = await asyncio.gather(*(_users_of(actor) for actor in actors.values()))
    if end:
        await asyncio.gather(*(_end(actor) for actor in actors.values()))
    free = {kind: number for kind, number in ray.available_resources().items() if kind in ("CPU", "GPU")}
    return ClusterFacts(nodes, free, [ReplicaUse(name, each) for name, each in zip(actors, users, strict=True)])


async def _users_of(actor: Any) -> int | None:
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            users: int = await actor.users.remote()
            return users
    except Exception:
        return None


async def _end(actor: Any) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_ASK_SECONDS):
            await actor.end.remote()
    await asyncio.to_thread(cluster.end, actor)


if __name__ == "__main__":
    main()
