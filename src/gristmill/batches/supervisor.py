"""The supervisor: claims unfinished batches, runs each, keeps their leases, survives their failures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time

import msgspec

from gristmill.batches.runner import Runner
from gristmill.batches.validation import Limits
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.storage.answers import AnswerStore
from gristmill.storage.protocol import LeaseLost, Storage, StorageError
from gristmill.storage.records import BatchRecord
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import ACTIVE_BATCHES
from gristmill.wire.batch import BatchProgress

log = get_logger(__name__)

LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 10.0
#: After a failure that is not a row's (a full disk, a defect), a batch is tried again after this many seconds.
FAILURE_PAUSE = 10.0
RELEASE_PAUSE = 2.0
MAX_ACTIVE = 16


class Supervisor:
    """Runs up to ``MAX_ACTIVE`` batches at a time, oldest first; they share the engine evenly."""

    def __init__(
        self, storage: Storage, dispatcher: Dispatcher, answers: AnswerStore, limits: Limits | None = None
    ) -> None:
        self._storage = storage
        self._answers = answers
        self._dispatcher = dispatcher
        self._limits = limits or Limits()
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._active: dict[str, tuple[Runner, asyncio.Task[None]]] = {}
        self._waiting_for: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Work until ``stop``."""
        heartbeat = asyncio.create_task(self._heartbeat())
        try:
            while not self._stopping:
                self._wake.clear()
                await self._claim_batches()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await self._wake.wait()
        finally:
            heartbeat.cancel()

    def wake(self) -> None:
        """There may be a new batch."""
        self._wake.set()

    def cancel(self, batch_id: str) -> None:
        """The batch's status was set to cancelling."""
        if batch_id in self._active:
            self._active[batch_id][0].cancel()
        self.wake()

    def progress(self, batch_id: str) -> BatchProgress | None:
        """How a batch is doing; None where nothing is known beyond what is stored."""
        reason = self._waiting_for.get(batch_id)
        if batch_id in self._active:
            progress = self._active[batch_id][0].progress()
            return progress if progress.waiting_for else msgspec.structs.replace(progress, waiting_for=reason)
        return BatchProgress(waiting_for=reason) if reason else None

    async def wait_for(self, batch_id: str) -> None:
        """Until nobody here works on the batch."""
        if batch_id in self._active:
            await asyncio.wait([self._active[batch_id][1]])

    async def stop(self, grace: float) -> None:
        """Hand every batch back; what is in flight has ``grace`` seconds to finish and be stored."""
        self._stopping = True
        self.wake()
        for runner, _ in self._active.values():
            runner.hand_back(grace)
        if tasks := [task for _, task in self._active.values()]:
            await asyncio.wait(tasks)

    async def _claim_batches(self) -> None:
        while len(self._active) < MAX_ACTIVE and not self._stopping:
            try:
                batch = await self._storage.metadata.batches.claim(self.owner, time.time(), LEASE_SECONDS)
            except Exception as error:
                log.error("cannot look for batches", reason=str(error))
                return
            if batch is None:
                return
            if batch.id not in self._active:
                # Ours may be free to claim too, if its lease could not be renewed in time.
                self._start(batch)

    def _start(self, batch: BatchRecord) -> None:
        runner = Runner(self._storage, self._dispatcher, batch, self.owner, self._limits, self._answers)
        task = asyncio.create_task(self._run_batch(runner))
        self._active[batch.id] = (runner, task)
        self._waiting_for.pop(batch.id, None)
        ACTIVE_BATCHES.set(len(self._active))
        task.add_done_callback(lambda _: self._ended(batch.id))

    def _ended(self, batch_id: str) -> None:
        del self._active[batch_id]
        ACTIVE_BATCHES.set(len(self._active))
        self.wake()

    async def _run_batch(self, runner: Runner) -> None:
        """A batch that fails here is not a failed batch: it is tried again, and says meanwhile what it waits for."""
        batch_id = runner.batch.id
        not_before = 0.0
        try:
            await runner.run()
        except* LeaseLost:
            log.warning("another runner took the batch over", batch=batch_id)
        except* StorageError as group:
            reason = str(group.exceptions[0])
            not_before = self._pause(batch_id, reason)
            log.error("batch paused", batch=batch_id, reason=reason)
        except* Exception as group:
            not_before = self._pause(batch_id, f"an unexpected error: {group.exceptions[0]!r}")
            log.error("batch paused by an unexpected error", batch=batch_id, exc_info=group)
        await self._release(batch_id, not_before)

    async def _release(self, batch_id: str, not_before: float) -> None:
        """Until it is done: a lease that is kept, and renewed with the others, would keep the batch from everyone."""
        while True:
            try:
                await self._storage.metadata.batches.release(batch_id, self.owner, not_before)
                return
            except Exception as error:
                if self._stopping:
                    return
                log.error("cannot release a batch", batch=batch_id, reason=str(error))
                await asyncio.sleep(RELEASE_PAUSE)

    def _pause(self, batch_id: str, reason: str) -> float:
        self._waiting_for[batch_id] = reason
        asyncio.get_running_loop().call_later(FAILURE_PAUSE + 0.1, self.wake)
        return time.time() + FAILURE_PAUSE

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                held = await self._storage.metadata.batches.renew(self.owner, time.time(), LEASE_SECONDS)
            except Exception as error:
                log.error("cannot renew leases", reason=str(error))
                continue
            for batch_id, (runner, _) in self._active.items():
                if batch_id not in held:
                    runner.hand_back(0)
