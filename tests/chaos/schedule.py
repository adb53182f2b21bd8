"""What is done to what, and when: by a seed, and by how many rows have a result, never by a clock. Pure."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import NamedTuple


class What(StrEnum):
    KILL_REPLICA = "kill a replica"
    HANG_REPLICA = "stop a replica"
    WAKE_REPLICA = "continue the replica"
    KILL_NODE = "kill a node"
    REPLACE_NODE = "start another node"
    HANG_NODE = "stop a node"
    WAKE_NODE = "continue the node"
    KILL_HEAD = "kill the cluster's head, and start it anew"
    HANG_HEAD = "stop the cluster's head"
    WAKE_HEAD = "continue the head"
    KILL_DRIVER = "kill a server's Ray client"
    HANG_DRIVER = "stop a server's Ray client, until it is ended"
    KILL_SERVER = "kill a server"
    START_SERVER = "start the server again"
    HANG_SERVER = "stop a server"
    WAKE_SERVER = "continue the server"
    RESTART_DATABASE = "restart the database"
    CRASH_DATABASE = "crash the database"
    HANG_DATABASE = "stop the database for three seconds"
    CUT_CONNECTIONS = "cut all connections to the database"
    CRASH_STORE = "kill the S3 server, and start it again"


#: What is hit, and how often. What lasts has a step that ends it.
_HITS = {
    What.KILL_REPLICA: 3,
    What.HANG_REPLICA: 1,
    What.KILL_NODE: 1,
    What.HANG_NODE: 1,
    What.KILL_HEAD: 1,
    What.HANG_HEAD: 1,
    What.KILL_DRIVER: 1,
    What.HANG_DRIVER: 1,
    What.KILL_SERVER: 1,
    What.HANG_SERVER: 1,
    What.RESTART_DATABASE: 1,
    What.CRASH_DATABASE: 1,
    What.HANG_DATABASE: 1,
    What.CUT_CONNECTIONS: 2,
    What.CRASH_STORE: 1,
}
_ENDS = {
    What.HANG_REPLICA: What.WAKE_REPLICA,
    What.KILL_NODE: What.REPLACE_NODE,
    What.HANG_NODE: What.WAKE_NODE,
    What.HANG_HEAD: What.WAKE_HEAD,
    What.KILL_SERVER: What.START_SERVER,
    What.HANG_SERVER: What.WAKE_SERVER,
}
#: Of two of a line the later one waits for the end of the earlier: one server, and two nodes, are always there.
_LINES = (
    frozenset({What.KILL_SERVER, What.HANG_SERVER}),
    frozenset({What.KILL_NODE, What.HANG_NODE, What.KILL_HEAD, What.HANG_HEAD}),
)


class Step(NamedTuple):
    """Due when ``at`` rows have a result. ``target`` is which of those that are there then, counted round, in their
    order; of servers, it is whichever runs the batch, three times of four. ``lasts``: rows until the step that ends
    it, if there is one."""

    at: int
    what: What
    target: int
    lasts: int = 0


def schedule(seed: int, rows: int) -> list[Step]:
    """In their order."""
    chance = random.Random(seed)
    hits = [what for what, times in _HITS.items() for _ in range(times)]
    chance.shuffle(hits)
    moments = sorted(chance.sample(range(rows // 20, rows * 4 // 5), len(hits)))
    return [
        Step(at, what, chance.randrange(1_000), chance.randrange(rows // 40, rows // 12) if what in _ENDS else 0)
        for at, what in zip(moments, hits, strict=True)
    ]


class Timetable:
    """The steps as they become due: what ends a step is due so many rows after it was done, which may be later than
    planned."""

    def __init__(self, steps: list[Step]) -> None:
        self._hits = list(reversed(steps))
        self._ends: list[Step] = []

    def next(self) -> Step | None:
        end = min(self._ends, default=None)
        hit = self._hits[-1] if self._hits else None
        if hit is None or (end is not None and (end.at <= hit.at or self._in_the_way(hit.what))):
            if end is not None:
                self._ends.remove(end)
            return end
        return self._hits.pop()

    def end_before(self, step: Step) -> Step | None:
        """What ends one of the steps that last, at once; ``step``, which ``next`` has given, is given again if it is
        another. None where nothing lasts."""
        if step.what in _ENDS.values():
            return step
        if not self._ends:
            return None
        end = min(self._ends)
        self._ends.remove(end)
        self._hits.append(step)
        return end

    def done(self, step: Step, counted: int) -> None:
        if step.what in _ENDS:
            self._ends.append(Step(counted + step.lasts, _ENDS[step.what], step.target))

    def _in_the_way(self, what: What) -> bool:
        there = {end.what for end in self._ends}
        return any(what in line and any(_ENDS.get(each) in there for each in line) for line in _LINES)
