"""The heartbeat: tells that this server is there and how its batches are doing, keeps their leases, and finds out what
others have taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from gristmill.batches.runner import Runner
from gristmill.dispatch.stop import Why
from gristmill.storage.errors import Unreachable
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, ServerRecord
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import LEASE_TAKEOVERS

log = get_logger(__name__)

#: A batch whose server died or hangs is taken over so long after the last heartbeat, and a look for batches.
LEASE_SECONDS = 20.0
HEARTBEAT_SECONDS = 5.0


class Heartbeat:
    """``me`` is asked at each beat, as what a server offers may change; ``runners`` are those that work now."""

    def __init__(
        self, storage: Storage, me: Callable[[], ServerRecord], runners: Callable[[], Collection[Runner]]
    ) -> None:
        self._metadata = storage.metadata
        self._owner = storage.server_id
        self._me = me
        self._runners = runners
        #: The servers that were there at the last beat, this one among them.
        self.servers = [me()]

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self._keep_leases()
            except Unreachable as error:
                # Nor will it know that this server is there.
                log.warning("cannot renew leases", reason=str(error))
                continue
            except Exception as error:
                log.error("cannot renew leases", exc_info=error)
            try:
                await self.announce()
            except Exception as error:
                log.error("cannot tell that this server is there", exc_info=error)

    async def announce(self) -> None:
        """That this server is there; and see who else is."""
        me = self._me()
        await self._metadata.servers.announce(me, LEASE_SECONDS)
        self.servers = await self._metadata.servers.alive() or [me]

    @property
    def served(self) -> frozenset[str]:
        """The endpoints that some server answers."""
        return frozenset(endpoint for server in self.servers for endpoint in server.endpoints)

    async def for_another(self, model: str, endpoint: str) -> bool:
        """Whether not this server has it, but another, which may have come a moment ago. Raises what storage raises."""
        if self._me().serves(model, endpoint):
            return False
        self.servers = await self._metadata.servers.alive()
        return self._somebody_serves(model, endpoint)

    def missing(self, batch: BatchRecord) -> str | None:
        """What the batch waits for of which no server is there, in words."""
        if not self._metadata.shared or self._somebody_serves(batch.model, batch.endpoint):
            return None
        wanted = f"{batch.endpoint}" if batch.model is None else f"the model '{batch.model}' at {batch.endpoint}"
        return f"A server that has {wanted}: none of those that run now does."

    def _somebody_serves(self, model: str | None, endpoint: str) -> bool:
        return any(server.serves(model, endpoint) for server in self.servers)

    async def leave(self) -> None:
        await self._metadata.servers.leave(self._owner)

    def trusted_until(self, asked_at: float) -> float | None:
        """Until when, on the monotonic clock, a lease is sure that was asked for at ``asked_at``: the store counts from
        later. None where nobody else could take it."""
        return asked_at + LEASE_SECONDS if self._metadata.shared else None

    async def _keep_leases(self) -> None:
        asked_at = time.monotonic()
        reports = {runner.batch.seq: runner.report() for runner in self._runners()}
        held = await self._metadata.batches.renew(self._owner, LEASE_SECONDS, reports)
        for runner in self._runners():
            if runner.lease in held:
                runner.stop.trust_until(self.trusted_until(asked_at))
            else:
                note_taken_over(runner)
                runner.stop.request(Why.LEAVING, 0)


def note_taken_over(runner: Runner) -> None:
    """Once for each: the heartbeat may find it out, or whoever stores something."""
    if not runner.taken_over:
        runner.taken_over = True
        LEASE_TAKEOVERS.inc()
        log.warning("another runner took the batch over", batch=runner.batch.id)
