"""Which replica gets a request. Pure.

Rows of one prefix stay with the replica that has computed it, until that has more than its share: then the one with
the least to do gets the next, and has the prefix from then on as well.
"""

from __future__ import annotations

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


def choose(loads: Mapping[str, Load], homes: frozenset[str]) -> str | None:
    """Of the replicas that are there; ``homes`` are those that have the request's prefix. None: all are full."""
    free = {name: load.share for name, load in loads.items() if not load.full}
    if not free:
        return None
    emptiest = min(free, key=free.__getitem__)
    at_home = [name for name in free if name in homes]
    if at_home:
        home = min(at_home, key=free.__getitem__)
        # Of few slots, one request more is a large share.
        room = max(_MORE_THAN_OTHERS, 1 / loads[home].slots)
        if free[home] <= free[emptiest] + room:
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
