"""Looking at a Ray cluster, and what is to think of it."""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.engines.ray.look import ClusterFacts, look
from gristmill.finding import Finding
from gristmill.user_error import UserError


def examine_ray(address: str) -> Iterator[Finding]:
    try:
        facts = look(address)
    except UserError as error:
        yield Finding("cluster", "problem", str(error), "Then look again: gristmill doctor --ray-address HOST:PORT.")
        return
    yield from judge_cluster(facts)


def judge_cluster(facts: ClusterFacts) -> Iterator[Finding]:
    """Pure."""
    alive = [node for node in facts.nodes if node.alive]
    cpus, gpus = sum(node.cpus for node in alive), sum(node.gpus for node in alive)
    free_cpus, free_gpus = facts.free.get("CPU", 0), facts.free.get("GPU", 0)
    yield Finding(
        "cluster", "ok", f"{len(alive)} nodes: {cpus:g} CPUs ({free_cpus:g} free), {gpus:g} GPUs ({free_gpus:g} free)."
    )
    if dead := sorted({node.name for node in facts.nodes if not node.alive}):
        yield Finding("nodes", "note", f"Nodes that have left: {', '.join(dead)}.")
    silent = [each.name for each in facts.replicas if each.users is None]
    if silent:
        advice = "Add nodes, ask for less, or end them: gristmill admin replicas --stop."
        yield Finding("replicas", "problem", f"Replicas that have no place, or hang: {', '.join(silent)}.", advice)
    idle = [each.name for each in facts.replicas if each.users == 0]
    if idle:
        advice = "They end by themselves unless they are kept; gristmill admin replicas --stop ends them now."
        yield Finding("replicas", "note", f"Replicas that nobody uses: {', '.join(idle)}.", advice)
    if used := len(facts.replicas) - len(silent) - len(idle):
        yield Finding("replicas", "ok", f"Replicas in use: {used}.")
