"""One batch's life, step by step, until it has ended or must be handed back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gristmill.batches import lifecycle
from gristmill.batches.execution import Execution
from gristmill.batches.finalization import finalize
from gristmill.batches.input_plan import store_plan
from gristmill.batches.known_answers import KnownAnswers
from gristmill.batches.plan_process import InputToPlan, plan_input
from gristmill.batches.validation import Limits, Stopped, Validation, validate
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.planning.job_plan import JobPlan
from gristmill.storage.answers import AnswerStore
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, file_blob
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.progress import Progress
from gristmill.wire.batch import BatchError, BatchProgress

log = get_logger(__name__)

#: A cancelled batch's requests in flight may finish within this many seconds, as with OpenAI.
CANCEL_GRACE = 600.0


class Runner:
    """Drives one batch from whatever state it is in. What is done is in storage, never only here."""

    def __init__(
        self,
        storage: Storage,
        dispatcher: Dispatcher,
        batch: BatchRecord,
        owner: str,
        limits: Limits,
        answers: AnswerStore,
    ) -> None:
        self._storage = storage
        self._dispatcher = dispatcher
        self._owner = owner
        self._limits = limits
        self._answers = answers
        self._execution: Execution | None = None
        self._stopping = False
        self._cancelled = False
        self._progress = Progress(batch.total)
        self.batch = batch

    async def run(self) -> None:
        """Work until the batch has ended, or ``hand_back`` was called. Raises what storage raises."""
        steps = {
            lifecycle.VALIDATING: self._validate,
            lifecycle.IN_PROGRESS: self._run_rows,
            lifecycle.FINALIZING: self._complete,
            lifecycle.CANCELLING: self._cancel,
        }
        while not self._stopping:
            # Read when ``cancel`` can already be called: a status read before would miss it.
            await self._reload()
            if lifecycle.is_terminal(self.batch.status):
                return
            await steps[self.batch.status]()

    def hand_back(self, grace: float) -> None:
        """Stop soon: requests in flight have ``grace`` seconds to finish and be stored."""
        self._stopping = True
        if self._execution is not None:
            self._execution.stop(grace)

    def cancel(self) -> None:
        """The batch's status says cancelling now; stop starting rows."""
        self._cancelled = True
        if self._execution is not None:
            self._execution.stop(CANCEL_GRACE)

    def progress(self) -> BatchProgress:
        if self._execution is None:
            return BatchProgress()
        self._progress.observe(time.monotonic(), self._execution.counts)
        rates = self._progress.rates()
        return BatchProgress(*rates, waiting_for=self._dispatcher.outage.reason)

    async def _validate(self) -> None:
        if self.batch.reuse_answers and await self._dispatcher.engine.fingerprint() is None:
            await self._reject([_cannot_reuse(self._dispatcher.engine.name)])
            return
        planning = asyncio.create_task(self._plan())
        try:
            validation = await self._validation(lambda: self._stopping or self._cancelled)
            if validation is None:
                return
            if validation.errors:
                await self._reject(validation.errors)
                return
            plan = await store_plan(self._storage, self.batch, await planning)
        finally:
            planning.cancel()
            await asyncio.gather(planning, return_exceptions=True)
        await self._change(lifecycle.validated(validation.total, validation.model, plan, _now()))
        found = {"groups": plan.prefix_groups, "deduplicated": plan.deduplicated}
        log.info("batch validated", batch=self.batch.id, rows=validation.total, **found)

    async def _plan(self) -> JobPlan:
        file = await self._storage.metadata.files.get(self.batch.input_file_id)
        # Validation says so where there is no file.
        size = file.bytes if file else 0
        blobs, path = self._storage.blobs.location, file_blob(self.batch.input_file_id)
        limit = self._limits.max_line_bytes
        return await plan_input(InputToPlan(blobs, path, size, self.batch.endpoint, self.batch.defaults, limit))

    async def _validation(self, stopping: Callable[[], bool]) -> Validation | None:
        models = self._dispatcher.engine.models
        try:
            return await validate(self._storage, self.batch, models, self._limits, stopping)
        except Stopped:
            return None

    async def _reject(self, errors: list[BatchError]) -> None:
        await self._change(lifecycle.rejected(errors, _now()))
        await self._storage.metadata.rows.clear(self.batch.seq)
        log.info("batch rejected", batch=self.batch.id, errors=len(errors))

    async def _run_rows(self) -> None:
        if self._cancelled:
            # The status was read while it was being changed.
            return
        self._progress.total = self.batch.total
        known = await self._known_answers()
        execution = self._execution = Execution(self._storage, self.batch, self._dispatcher, self._owner, known)
        expiry = asyncio.get_running_loop().call_later(max(self.batch.expires_at - time.time(), 0), execution.stop, 0.0)
        sampling = asyncio.create_task(self._sample())
        try:
            await execution.run()
        finally:
            expiry.cancel()
            sampling.cancel()
            self._execution = None
            self._dispatcher.forget(self.batch.id)
        await self._reload()
        if self.batch.status != lifecycle.IN_PROGRESS:
            return
        if self.batch.completed + self.batch.failed == self.batch.total:
            await self._change(lifecycle.all_rows_done(_now()))
        elif _now() >= self.batch.expires_at:
            await self._end(lifecycle.EXPIRED)

    async def _known_answers(self) -> KnownAnswers | None:
        fingerprint = await self._dispatcher.engine.fingerprint() if self.batch.reuse_answers else None
        if fingerprint is None:
            return None
        return KnownAnswers(self._answers, fingerprint, self.batch.endpoint, self.batch.defaults)

    async def _complete(self) -> None:
        await self._end(lifecycle.COMPLETED)

    async def _cancel(self) -> None:
        if self.batch.in_progress_at is None and not await self._know_rows():
            return
        await self._end(lifecycle.CANCELLED)

    async def _know_rows(self) -> bool:
        """Cancelled before validation was over: every line still has to be in a file, so find out what they are."""
        validation = await self._validation(lambda: self._stopping)
        if validation is None:
            return False
        if validation.errors:
            await self._reject(validation.errors)
            return False
        await self._change({"total": validation.total, "model": validation.model})
        return True

    async def _end(self, status: str) -> None:
        if await finalize(self._storage, self.batch, status, _now()):
            counts = {
                "completed": self.batch.completed,
                "failed": self.batch.failed,
                "total": self.batch.total,
            }
            log.info("batch ended", batch=self.batch.id, status=status, **counts)

    async def _change(self, changes: dict[str, object]) -> None:
        await self._storage.metadata.batches.change(self.batch.id, changes, expected=self.batch.status)

    async def _reload(self) -> None:
        batch = await self._storage.metadata.batches.get(self.batch.id)
        assert batch is not None, "batches are never deleted"
        self.batch = batch

    async def _sample(self) -> None:
        while True:
            eta = self.progress().eta_seconds
            if self._execution is not None:
                self._execution.weigh(eta)
            await asyncio.sleep(1)


def _cannot_reuse(engine: str) -> BatchError:
    message = (
        f"Answers cannot be reused with the {engine} engine: it does not tell which weights it serves. "
        "Create the batch without reuse_answers."
    )
    return BatchError("invalid_request", message, param="reuse_answers")


def _now() -> int:
    return int(time.time())
