"""Leader first: of the rows that share a prefix, one goes first, and its siblings wait until the prefix is computed.

Sent together to an engine with one prefix cache for all its slots, they would each find it empty and compute the same
prefix. Engines that see to it themselves (the embedded one), and engines whose slots keep a prefix each (llama.cpp,
Ollama), where waiting would gain nothing, say so with ``Capabilities.leader_first``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from gristmill.dispatch.stop import Stop

#: Prefixes remembered as computed; one that is forgotten costs one more leader.
_REMEMBERED = 4096


class PrefixLeaders:
    """Which prefixes are computed, and which have a leader that is at it. Never more than one leader a prefix."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._remembered = remembered
        self._computed: OrderedDict[int, None] = OrderedDict()
        self._leading: dict[int, asyncio.Event] = {}

    def busy(self, prefix: int) -> bool:
        """Whether a leader is at work, so that its siblings should ``wait``."""
        return prefix in self._leading

    async def wait(self, prefix: int) -> None:
        """Until the leader has ended, well or not. Another sibling may have become leader by then."""
        if event := self._leading.get(prefix):
            await event.wait()

    async def turn(self, prefix: int, stop: Stop) -> bool:
        """Wait for the row's leader, if it has one; whether the row is to lead itself, as after ``claim``."""
        while self.busy(prefix):
            await stop.unless(self.wait(prefix))
        return self.claim(prefix)

    def claim(self, prefix: int) -> bool:
        """Go ahead with a row whose prefix is not ``busy``; True: as its leader, who must ``release`` it."""
        if prefix in self._computed:
            self._computed.move_to_end(prefix)
            return False
        self._leading[prefix] = asyncio.Event()
        return True

    def release(self, prefix: int, computed: bool) -> None:
        """The leader has ended. If it failed, the next sibling leads."""
        self._leading.pop(prefix).set()
        if computed:
            self._computed[prefix] = None
            if len(self._computed) > self._remembered:
                self._computed.popitem(last=False)

    def forget(self) -> None:
        """The engine went away, and its cache with it."""
        self._computed.clear()
