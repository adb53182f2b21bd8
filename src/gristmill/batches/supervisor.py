"""The supervisor: claims unfinished batches, runs each, keeps their leases, survives their failures."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from gristmill import __version__
from gristmill.batches import lifecycle
from gristmill.batches.heartbeat import LEASE_SECONDS, Heartbeat, note_taken_over
from gristmill.batches.input_reader import Limits
from gristmill.batches.places import PAUSED, PLACES, HeldPlace, waiting_reason, who_gives_way
from gristmill.batches.runner import Runner
from gristmill.batches.status_line import status_line
from gristmill.batches.workplace import Workplace
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.stop import Why
from gristmill.storage.answers import AnswerStore
from gristmill.storage.errors import LeaseLost, StorageError, Unreachable
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, Claim, RunnerReport, ServerRecord, Stage
from gristmill.tasks import supervised
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import ACTIVE_BATCHES
from gristmill.telemetry.progress import Counts
from gristmill.telemetry.spans import Spans
from gristmill.wire.batch import BatchProgress

log = get_logger(__name__)

#: How long a batch that waits may be past its window before that is seen.
LOOK_SECONDS = 2.0
#: After a failure that is not a row's (a full disk, a defect), a batch is tried again after this many seconds.
FAILURE_PAUSE = 10.0
RELEASE_PAUSE = 2.0
#: What is in flight of a batch that gives way to another may take this long.
GIVE_WAY_GRACE = 60.0


class _Active(NamedTuple):
    """A batch that is being worked on here; ``since`` is on the monotonic clock."""

    runner: Runner
    since: float


class Supervisor:
    """Runs as many batches at a time as there are places at their stage; those that run share the engine."""

    def __init__(
        self,
        storage: Storage,
        dispatcher: Dispatcher,
        answers: AnswerStore,
        scratch: Path,
        limits: Limits | None = None,
        spans: Spans | None = None,
    ) -> None:
        self._storage = storage
        self._dispatcher = dispatcher
        self.owner = storage.server_id
        self._started_at = time.time()
        self._active: dict[str, _Active] = {}
        #: Of those that are active, and of those whose lease is being given back.
        self._tasks: set[asyncio.Task[None]] = set()
        self.heartbeat = Heartbeat(storage, self._me, lambda: [each.runner for each in self._active.values()])
        self._workplace = Workplace(
            storage, dispatcher, answers, limits or Limits(), scratch, spans, self.heartbeat.for_another
        )
        self._waiting_for: dict[str, str] = {}
        #: Of those that are about to be tried again: when they last got on, in Unix time.
        self._quiet_since: dict[str, float] = {}
        #: What was done of batches that were left since ``take_done``.
        self._left: dict[str, tuple[Counts, Counts]] = {}
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until ``stop``."""
        heartbeat = supervised("heartbeat", self.heartbeat.run)
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                try:
                    await self._fill_places()
                    await self._make_room()
                except Unreachable as error:
                    log.warning("cannot look for batches", reason=str(error))
                except Exception as error:
                    log.error("cannot look for batches", exc_info=error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._wake.wait()
            while self._tasks:
                # Those that are leaving keep their leases until they have left.
                await asyncio.wait(self._tasks)
        finally:
            heartbeat.cancel()

    def wake(self) -> None:
        """There may be a new batch."""
        self._wake.set()

    def changed(self, stored: BatchRecord) -> None:
        """The batch was cancelled, paused, resumed, or given another priority."""
        if stored.id in self._active:
            self._active[stored.id].runner.heed(stored)
        self.wake()

    def hear(self, batch_id: str | None) -> None:
        """On another server perhaps, something was done to this batch, or to any: look at once, as is done again and
        again anyway."""
        for active in self._active.values():
            if batch_id is None or active.runner.batch.id == batch_id:
                active.runner.look()
        self.wake()

    def progress(self, batch: BatchRecord) -> BatchProgress | None:
        """How an unfinished batch is doing; None where nothing is known beyond what is stored."""
        reason = PAUSED if lifecycle.rests(batch, time.time()) else self._waiting_for.get(batch.id)
        if batch.id in self._active:
            progress = self._active[batch.id].runner.progress()
            return progress if reason is None else msgspec.structs.replace(progress, waiting_for=reason)
        if batch.report is not None:
            # Of whoever works on it elsewhere.
            told = batch.report.progress
            return told if reason is None else msgspec.structs.replace(told, waiting_for=reason)
        reason = reason or self._missing(batch) or waiting_reason(batch, time.time(), self._count)
        return BatchProgress(waiting_for=reason) if reason else None

    @property
    def status_line(self) -> str:
        """What all this is doing, in one sentence."""
        return status_line([each.runner.at_work() for each in self._active.values()], self._dispatcher.down_reason)

    def last_result_at(self, batch_id: str) -> float | None:
        """When a batch whose rows are being run, or that waits to be tried again after a failure, last stored a result
        or began without one, in Unix time; None for any other."""
        if batch_id in self._active:
            return self._active[batch_id].runner.last_result_at
        return self._quiet_since.get(batch_id)

    def measured(self, batch_id: str) -> BatchProgress | None:
        """None for a batch that nobody works on here."""
        return self._active[batch_id].runner.progress() if batch_id in self._active else None

    def take_done(self) -> tuple[dict[str, Counts], dict[str, Counts]]:
        """What has been done by now of each batch whose rows are run here, and what had been when that began. Batches
        that were left since the last call are told of once more."""
        found = self._left | {
            batch_id: done for batch_id, (runner, _) in self._active.items() if (done := runner.done())
        }
        self._left = {}
        return {name: now for name, (_, now) in found.items()}, {name: began for name, (began, _) in found.items()}

    async def stop(self, grace: float) -> None:
        """Leave every batch; what is in flight has ``grace`` seconds to finish and be stored."""
        self._stopping.set()
        self.wake()
        # A claim that was under way may still start a runner: it finds that all is over, and leaves at once.
        while self._tasks:
            for active in self._active.values():
                # Also where it gives way already: that may take longer.
                active.runner.stop.request(Why.LEAVING, grace)
            await asyncio.wait(self._tasks)

    async def _fill_places(self) -> None:
        for stage, places in PLACES.items():
            while not self._stopping.is_set() and self._count(stage) < places:
                asked_at = time.monotonic()
                claim = await self._storage.metadata.batches.claim(
                    self.owner, time.time(), LEASE_SECONDS, stage, self._only_for
                )
                if claim is None:
                    break
                if claim.batch.id in self._active:
                    # It was taken over and given back while the runner that lost it is still about to leave.
                    await self._storage.metadata.batches.release(claim.lease, RELEASE_PAUSE)
                    break
                self._start(claim, stage, self.heartbeat.trusted_until(asked_at))

    async def _make_room(self) -> None:
        """Where a batch waits that is to go first, the one that has to give way does."""
        if self._stopping.is_set() or self._count(Stage.EXECUTION) < PLACES[Stage.EXECUTION]:
            return
        held = self._held()
        waiting = await self._storage.metadata.batches.next_in_line(time.time(), Stage.EXECUTION, self._only_for)
        if waiting is not None and (batch_id := who_gives_way(held, waiting.priority)) in self._active:
            log.info("batch gives way", batch=batch_id, to=waiting.id)
            self._active[batch_id].runner.stop.request(Why.LEAVING, GIVE_WAY_GRACE)

    def _held(self) -> list[HeldPlace]:
        now = time.monotonic()
        return [
            HeldPlace(batch_id, runner.stage, runner.batch.priority, now - since, runner.stop.leaving)
            for batch_id, (runner, since) in self._active.items()
        ]

    def _count(self, stage: Stage) -> int:
        return sum(active.runner.stage is stage for active in self._active.values())

    def _start(self, claim: Claim, stage: Stage, trusted_until: float | None) -> None:
        batch = claim.batch
        runner = Runner(self._workplace, claim, stage, self._quiet_since.pop(batch.id, None))
        runner.stop.trust_until(trusted_until)
        if self._stopping.is_set():
            runner.stop.request(Why.LEAVING, 0)
        self._active[batch.id] = _Active(runner, time.monotonic())
        self._waiting_for.pop(batch.id, None)
        ACTIVE_BATCHES.set(len(self._active))
        task = asyncio.create_task(self._run_batch(runner))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.wake()

    async def _run_batch(self, runner: Runner) -> None:
        """A batch that fails here is not a failed batch: it is tried again, and says meanwhile what it waits for."""
        batch_id = runner.batch.id
        pause = 0.0
        try:
            await runner.run()
        except* LeaseLost:
            note_taken_over(runner)
        except* StorageError as group:
            reason = str(group.exceptions[0])
            pause = self._put_off(runner, reason)
            log.error("batch put off", batch=batch_id, reason=reason)
        except* (Exception, asyncio.CancelledError) as group:
            # A cancellation is of something that it waited for: nobody cancels the task itself but to end the process.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            pause = self._put_off(runner, f"an unexpected error: {group.exceptions[0]!r}")
            log.error("batch put off by an unexpected error", batch=batch_id, exc_info=group)
        if (done := runner.done()) is not None:
            self._left[batch_id] = done
        # Before its lease is given back: whoever is given it then, and that may be this supervisor, starts a runner.
        del self._active[batch_id]
        ACTIVE_BATCHES.set(len(self._active))
        await self._release(runner, pause)

    async def _release(self, runner: Runner, pause: float) -> None:
        """Until it is done: a lease that is kept, and renewed with the others, would keep the batch from everyone."""
        while True:
            try:
                report = RunnerReport(BatchProgress(waiting_for=self._waiting_for.get(runner.batch.id)))
                await self._storage.metadata.batches.release(runner.lease, pause, report if pause else None)
                return
            except Unreachable as error:
                log.warning("cannot release a batch", batch=runner.batch.id, reason=str(error))
            except Exception as error:
                log.error("cannot release a batch", batch=runner.batch.id, exc_info=error)
            if self._stopping.is_set():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_PAUSE):
                    await self._stopping.wait()

    def _put_off(self, runner: Runner, reason: str) -> float:
        self._waiting_for[runner.batch.id] = reason
        if runner.quiet_since is not None:
            self._quiet_since[runner.batch.id] = runner.quiet_since
        asyncio.get_running_loop().call_later(FAILURE_PAUSE + 0.1, self.wake)
        return FAILURE_PAUSE

    @property
    def _only_for(self) -> ServerRecord | None:
        """Whoever is alone takes up everything: its engine says of what it has not."""
        return self._me() if self._storage.metadata.shared else None

    def _missing(self, batch: BatchRecord) -> str | None:
        step = lifecycle.next_step(batch, time.time())
        return None if step is None or step.stage is Stage.ENDING else self.heartbeat.missing(batch)

    def _me(self) -> ServerRecord:
        dispatcher = self._dispatcher
        return ServerRecord(
            id=self.owner,
            name=socket.gethostname(),
            version=__version__,
            engine=dispatcher.engine.name,
            models=sorted(dispatcher.models),
            endpoints=sorted(dispatcher.endpoints),
            started_at=self._started_at,
        )
