"""A replica as our process sees it."""

from __future__ import annotations

import time

from gristmill.engines.health import ServerHealth
from gristmill.engines.ray.messages import ReplicaFacts
from gristmill.engines.ray.pool_request import PoolRequest
from gristmill.engines.ray.trials import Candidate


class Member:
    """A replica that is there, in one session."""

    def __init__(self, name: str, session: str, facts: ReplicaFacts) -> None:
        self.name = name
        self.session = session
        self.facts = facts
        self.in_flight: dict[int, PoolRequest] = {}
        #: Not sent yet; ``since`` is when the first of them came.
        self.group: list[tuple[int, bytes]] = []
        self.since = 0.0
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
