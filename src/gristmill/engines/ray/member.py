"""A replica as our process sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gristmill.engines.health import ServerHealth, after_push_back
from gristmill.engines.ray import messages
from gristmill.engines.ray.frames import Send
from gristmill.engines.ray.messages import ReplicaFacts
from gristmill.engines.ray.pool_request import PoolRequest
from gristmill.engines.ray.trials import Candidate

#: Requests that go to one replica within so many seconds go together, or so many of them.
_GATHER_SECONDS = 0.002
_MOST_IN_GROUP = 64
#: Seconds for which one that another server's row is alone at is left alone.
_TAKEN_REST = 1.0


class Member:
    """A replica that is there, in one session. ``send`` hands a frame to the driver."""

    def __init__(self, name: str, session: str, facts: ReplicaFacts, send: Callable[[Send], None]) -> None:
        self.name = name
        self.session = session
        self.facts = facts
        self._send = send
        self.in_flight: dict[int, PoolRequest] = {}
        #: Not sent yet; ``since`` is when the first of them came.
        self._group: list[tuple[int, bytes]] = []
        self._since = 0.0
        #: Of the engine in it, which may be away while the replica is there.
        self.health = ServerHealth()
        #: When it last broke a request off, or was away; 0 where it has answered one since.
        self.broke_off = 0.0

    @property
    def slots(self) -> int:
        """After a rest it gets one request, until that is answered."""
        return self.facts.capabilities.slots if self.health.trips == 0 else 1

    @property
    def rests(self) -> bool:
        return time.monotonic() < self.health.rest_until

    @property
    def candidate(self) -> Candidate:
        return Candidate(len(self.in_flight), self.broke_off)

    def rest_while_taken(self) -> None:
        self.health = after_push_back(self.health, _TAKEN_REST, time.monotonic())

    def write(self, number: int, message: bytes, at_once: bool) -> None:
        if not self._group:
            self._since = time.monotonic()
        self._group.append((number, message))
        if at_once or len(self._group) >= _MOST_IN_GROUP:
            self._flush()
        elif len(self._group) == 1:
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._flush)

    def take_unsent(self) -> set[int]:
        """The numbers of what is not sent yet, and never will be."""
        unsent = {number for number, _ in self._group}
        self._group.clear()
        return unsent

    def _flush(self) -> None:
        group, self._group = self._group, []
        if group:
            self._send(Send(self.name, self.session, messages.encode_group(group), self._since))
