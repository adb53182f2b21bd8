"""One batch's life, step by step, until it has ended or must be left to somebody else."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec

from gristmill.batches import lifecycle
from gristmill.batches.batch_trace import BatchTrace
from gristmill.batches.execution import Execution
from gristmill.batches.finalization import finalize
from gristmill.batches.first_model import first_model
from gristmill.batches.lifecycle import Step
from gristmill.batches.reusable_answers import ReusableAnswers, cannot_reuse
from gristmill.batches.room import judge
from gristmill.batches.row_allowance import row_allowance
from gristmill.batches.status_line import BatchAtWork
from gristmill.batches.validation import Validation, validate
from gristmill.batches.workplace import Workplace
from gristmill.dispatch.stop import Stop, Stopped, Why
from gristmill.engines.errors import EngineError
from gristmill.inference.endpoints import check_offered
from gristmill.storage.errors import BlobLost
from gristmill.storage.records import BatchRecord, Claim, RunnerReport, Stage
from gristmill.tasks import supervised
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.progress import Counts, Progress
from gristmill.wire.batch import BatchError, BatchProgress

log = get_logger(__name__)

#: What is in flight of a batch that is paused may take this long (seconds); what takes longer runs again.
PAUSE_GRACE = 60.0
#: A cancelled batch's requests in flight may finish within this many seconds, as with OpenAI.
CANCEL_GRACE = 600.0
_WATCH_SECONDS = 1.0


class Runner:
    """Drives one batch from the stage it is in. What is done is in storage, never only here.

    ``stop`` is the batch's own: requested for CANCELLED once its status says so, for LEAVING when somebody else is to
    go on. Its every step gives way to it.
    """

    def __init__(self, workplace: Workplace, claim: Claim, stage: Stage, quiet_since: float | None = None) -> None:
        self._workplace = workplace
        self._storage = workplace.storage
        self._dispatcher = workplace.dispatcher
        self._execution: Execution | None = None
        self._progress = Progress(claim.batch.total)
        self._last_execution: Execution | None = None
        self.batch = claim.batch
        self.lease = claim.lease
        self.stage = stage
        self.stop = Stop()
        #: When the rows had their last result, or began to be run without one, in Unix time, at their last attempt.
        self.quiet_since = quiet_since
        self._is_to_look = asyncio.Event()
        #: Whether somebody else has the lease now.
        self.taken_over = False

    async def run(self) -> None:
        """Work until the batch has ended, or comes to a stage that takes more of the machine than its own, or is to be
        left. Raises what storage raises."""
        watching = supervised("watch", self._watch)
        try:
            while not self.stop.leaving:
                if not await self._reload():
                    return
                step = lifecycle.next_step(self.batch, time.time())
                if step is None or step.stage not in (self.stage, Stage.ENDING):
                    return
                if self.stop.requested and step.stage is not Stage.ENDING:
                    # The clock was set back: whoever takes the batch up now does not know of its end.
                    return
                try:
                    await self._take(step)
                except* BlobLost as group:
                    with contextlib.suppress(Stopped):
                        await self.stop.unless(self._fail(str(group.exceptions[0])), only_leaving=True)
        finally:
            watching.cancel()
            self.stop.close()

    def look(self) -> None:
        """Somebody else may have changed the batch."""
        self._is_to_look.set()

    def heed(self, stored: BatchRecord) -> None:
        """What somebody else has changed of the batch: it was cancelled, paused, or given another priority."""
        now = time.time()
        if stored.status == lifecycle.CANCELLING:
            self.stop.request(Why.CANCELLED, CANCEL_GRACE)
        elif lifecycle.next_step(stored, now) is Step.EXPIRE:
            # Its window may have ended in this moment: a pause that comes too late holds nothing, and nothing goes on.
            self.stop.request(Why.EXPIRED, 0)
        elif lifecycle.rests(stored, now):
            self.stop.request(Why.LEAVING, PAUSE_GRACE)
        self.batch = msgspec.structs.replace(self.batch, priority=stored.priority)
        self._weigh()

    def progress(self) -> BatchProgress:
        if self._execution is None:
            return BatchProgress()
        self._progress.observe(time.monotonic(), self._execution.counts)
        rates = self._progress.rates()
        waiting_for, in_flight = self._dispatcher.waiting_for, self._dispatcher.in_flight
        return BatchProgress(*rates, waiting_for=waiting_for, requests_in_flight=in_flight)

    def report(self) -> RunnerReport:
        """For the other servers."""
        return RunnerReport(self.progress(), self.last_result_at)

    def at_work(self) -> BatchAtWork:
        """For the line that says what the whole server is doing."""
        batch = self.batch
        done = self._execution.counts.rows if self._execution is not None else batch.completed + batch.failed
        return BatchAtWork(batch.id, done, batch.total, self.progress())

    @property
    def last_result_at(self) -> float | None:
        """When a result was last stored, in Unix time; None where no rows are being run."""
        return None if self._execution is None else self._execution.last_result_at

    def done(self) -> tuple[Counts, Counts] | None:
        """What had been done when the rows began to be run here, and what has been by now; None before that."""
        last = self._last_execution
        return None if last is None else (last.began_with, last.counts)

    async def _take(self, step: Step) -> None:
        try:
            match step:
                case Step.VALIDATE:
                    await self.stop.unless(self._validate())
                case Step.EXECUTE:
                    await self._execute()
                case Step.FINALIZE:
                    await self._end(lifecycle.COMPLETED)
                case Step.CANCEL:
                    await self._end(lifecycle.CANCELLED)
                case Step.EXPIRE:
                    await self._end(lifecycle.EXPIRED)
        except Stopped:
            # What is next is for the stored status to say.
            pass

    async def _validate(self) -> None:
        for_another = self._workplace.for_another
        if self._storage.metadata.shared and for_another is not None:
            model = await first_model(self._storage, self.batch)
            if model is not None and await for_another(model, self.batch.endpoint):
                await self._change({"model": model})
                log.info("batch left to a server that has its model", batch=self.batch.id, model=model)
                self.stop.request(Why.LEAVING, 0)
                return
        try:
            check_offered(self.batch.endpoint, self._dispatcher.engine.name, self._dispatcher.endpoints)
        except EngineError as error:
            # It was created for another engine.
            await self._reject([BatchError("invalid_request", error.message, param="endpoint")])
            return
        if self.batch.reuse_answers and await self._dispatcher.fingerprint() is None:
            await self._reject([cannot_reuse(self._dispatcher.engine.name)])
            return
        most_rows = (await row_allowance(self._storage, self.batch)).limit
        validation = await self._read_input(plan=True, most_rows=most_rows)
        found = await judge(self._storage, self.batch, validation)
        if found.errors:
            await self._reject(found.errors)
            return
        assert validation.plan is not None
        plan = msgspec.structs.replace(validation.plan, disk_warning=found.warning)
        await self._change(lifecycle.validated(validation.total, validation.model, plan, validation.tree, _now()))
        planned = {"groups": plan.prefix_groups, "deduplicated": plan.deduplicated}
        log.info("batch validated", batch=self.batch.id, rows=validation.total, **planned)

    async def _read_input(self, plan: bool, most_rows: int | None = None) -> Validation:
        place, models = self._workplace, self._dispatcher.models
        scratch = place.scratch if plan else None
        limits = place.limits
        if most_rows is not None:
            limits = limits._replace(max_rows=min(limits.max_rows, most_rows))
        pinned = self._dispatcher.engine.capabilities.pinned
        return await validate(self._storage, self.batch, self.lease, models, limits, scratch, pinned)

    async def _reject(self, errors: list[BatchError]) -> None:
        if not await self._change(lifecycle.rejected(errors, _now())):
            return
        self._trace_end(lifecycle.FAILED)
        await self._storage.metadata.rows.clear_ended(self.batch.seq)
        log.info("batch rejected", batch=self.batch.id, errors=len(errors))

    async def _fail(self, reason: str) -> None:
        """The input is gone or cut off, and no retry brings it back. What has been answered is kept."""
        await self._reload()
        errors = [BatchError("input_file_lost", f"The input file cannot be read any more. {reason}", param="file_id")]
        if self.batch.in_progress_at is None:
            await self._reject(errors)
        elif self.batch.status == lifecycle.IN_PROGRESS and await self._finalize(lifecycle.FAILED, errors):
            log.error("batch failed", batch=self.batch.id, reason=reason)

    async def _execute(self) -> None:
        known = await self.stop.unless(self._reusable_answers())
        self._progress.total = self.batch.total
        self._execution = Execution(
            self._storage, self.batch, self._dispatcher, self.lease, known, self.quiet_since, self._trace()
        )
        self._last_execution = self._execution
        try:
            await self._execution.run(self.stop)
        finally:
            self.quiet_since = self._execution.last_result_at
            self._execution = None
            self._dispatcher.forget(self.batch.id)

    async def _reusable_answers(self) -> ReusableAnswers | None:
        fingerprint = await self._dispatcher.fingerprint() if self.batch.reuse_answers else None
        if fingerprint is None:
            return None
        batch = self.batch
        return ReusableAnswers(self._workplace.answers, fingerprint, batch.endpoint, batch.defaults, batch.key_id)

    async def _end(self, status: str) -> None:
        await self.stop.unless(self._write_files(status), only_leaving=True)

    async def _write_files(self, status: str) -> None:
        if self.batch.in_progress_at is None and not await self._learn_rows():
            return
        if self.batch.status == lifecycle.IN_PROGRESS and status == lifecycle.COMPLETED:
            await self._change(lifecycle.all_rows_done(_now()))
            return
        if await self._finalize(status):
            counts = {name: getattr(self.batch, name) for name in ("completed", "failed", "total")}
            log.info("batch ended", batch=self.batch.id, status=status, **counts)

    async def _finalize(self, status: str, errors: list[BatchError] | None = None) -> bool:
        return await finalize(
            self._storage, self.batch, self.lease, status, _now(), errors, lambda: self._trace_end(status)
        )

    def _trace(self) -> BatchTrace | None:
        spans = self._workplace.spans
        return None if spans is None else BatchTrace(spans, self.batch, self._dispatcher.engine.name)

    def _trace_end(self, status: str) -> None:
        if (trace := self._trace()) is not None:
            trace.ended(self.batch, status)

    async def _learn_rows(self) -> bool:
        """The batch ends before its validation: every line still has to be in a file, so find out what they are."""
        validation = await self._read_input(plan=False)
        if validation.errors:
            await self._reject(validation.errors)
            return False
        # Where the status has changed meanwhile, the batch may have to end otherwise.
        known = await self._change({"total": validation.total, "model": validation.model})
        await self._reload()
        return known

    async def _change(self, changes: dict[str, object]) -> bool:
        """False where the status has changed meanwhile."""
        batch = self.batch
        return await self._storage.metadata.batches.change(batch.id, changes, expected=batch.status, lease=self.lease)

    async def _reload(self) -> bool:
        """False where the batch has ended and been forgotten since."""
        batch = await self._storage.metadata.batches.get(self.batch.id)
        self.batch = batch or self.batch
        return batch is not None

    async def _watch(self) -> None:
        """Look again and again at what nobody may have told: the wall clock, which a window follows and which may jump,
        and what is stored, which whoever cancels or pauses changes first."""
        while True:
            self._is_to_look.clear()
            self._weigh()
            if time.time() >= self.batch.expires_at:
                self.stop.request(Why.EXPIRED, 0)
            # A storage that cannot answer now is met by the step under way.
            with contextlib.suppress(Exception):
                batch = await self._storage.metadata.batches.get(self.batch.id)
                if batch is not None:
                    self.heed(batch)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await self._is_to_look.wait()

    def _weigh(self) -> None:
        eta = self.progress().eta_seconds
        if self._execution is not None:
            self._execution.weigh(self.batch.priority, eta)


def _now() -> int:
    return int(time.time())
