"""Which replica gets a request. Pure.

Rows of one prefix stay with the replica that has computed it, until that has more than its share: then the one with
the least to do gets the next, and has the prefix from then on as well.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

#: A replica may have this share of its slots more in use than the emptiest one before its prefixes go elsewhere, too.
_MORE_THAN_OTHERS = 0.25
#: Prefixes whose replicas are remembered.
_REMEMBERED = 4096


class Load(NamedTuple):
    in_flight: int
    slots: int

    @property
    def share(self) -> float:
        return self.in_flight / self.slots

    @property
    def full(self) -> bool:
        return self.in_flight >= self.slots


class Loads:
    """How full each replica is. A change, and to know the emptiest, costs the logarithm of their number, as every row
    needs both and there may be a thousand replicas."""

    def __init__(self, loads: Mapping[str, Load] | None = None) -> None:
        self._of: dict[str, Load] = {}
        #: By share; what a replica no longer has is passed over.
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        for name, load in (loads or {}).items():
            self.set(name, load)

    def set(self, name: str, load: Load) -> None:
        self._of[name] = load
        if len(self._heap) > 8 * len(self._of) + 64:
            self._heap = [(each.share, next(self._order), other) for other, each in self._of.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (load.share, next(self._order), name))

    def drop(self, name: str) -> None:
        self._of.pop(name, None)

    def free(self, name: str) -> bool:
        load = self._of.get(name)
        return load is not None and not load.full

    def __getitem__(self, name: str) -> Load:
        return self._of[name]

    def emptiest(self) -> str | None:
        """None: all are full."""
        while self._heap:
            share, _, name = self._heap[0]
            load = self._of.get(name)
            if load is not None and load.share == share:
                return None if load.full else name
            heapq.heappop(self._heap)
        return None


def choose(loads: Loads, homes: frozenset[str]) -> str | None:
    """Of the replicas that are there; ``homes`` are those that have the request's prefix. None: all are full."""
    emptiest = loads.emptiest()
    if emptiest is None or emptiest in homes:
        return emptiest
    at_home = [name for name in homes if loads.free(name)]
    if at_home:
        home = min(at_home, key=lambda name: loads[name].share)
        # Of few slots, one request more is a large share.
        room = max(_MORE_THAN_OTHERS, 1 / loads[home].slots)
        if loads[home].share <= loads[emptiest].share + room:
            return home
    return emptiest


class Homes:
    """Which replicas have which prefix."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._remembered = remembered
        self._of: OrderedDict[int, frozenset[str]] = OrderedDict()

    def of(self, prefix: int | None) -> frozenset[str]:
        return frozenset() if prefix is None else self._of.get(prefix, frozenset())

    def add(self, prefix: int | None, replica: str) -> None:
        if prefix is None:
            return
        known = self._of.get(prefix, frozenset())
        if replica not in known:
            self._of[prefix] = known | {replica}
        self._of.move_to_end(prefix)
        if len(self._of) > self._remembered:
            self._of.popitem(last=False)

    def forget(self, replica: str) -> None:
        """It went away, and its cache with it."""
        for prefix, known in self._of.items():
            if replica in known:
                self._of[prefix] = known - {replica}
