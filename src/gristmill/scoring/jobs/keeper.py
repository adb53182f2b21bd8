"""Runs the scorings of a server, a process each, and goes on with those that a stop or a kill has left."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import msgspec

from gristmill.batches.host import BatchHost
from gristmill.batches.scoped_host import ScopedHost
from gristmill.scoring.computation import Computation, computation_of_server
from gristmill.scoring.jobs.job import JobStatus, RankForm, ScoreForm, ScoreJob, TableFacts
from gristmill.scoring.jobs.job_store import WORK, JobStore
from gristmill.scoring.jobs.messages import (
    Began,
    Check,
    Checked,
    End,
    Finished,
    Inspect,
    Inspected,
    Planned,
    Ranked,
    Refused,
    RunPass,
    Score,
    ToWorker,
)
from gristmill.scoring.jobs.passes_here import begin_pass, end_pass, ended
from gristmill.scoring.jobs.rank_summary import Step
from gristmill.scoring.jobs.worker_process import WorkerKilled, started_worker
from gristmill.storage.errors import StorageError
from gristmill.storage.open import places
from gristmill.storage.scope import EVERYTHING
from gristmill.telemetry.log import get_logger
from gristmill.user_error import UserError
from gristmill.wire.errors import ApiError
from gristmill.wire.paths import SCORE

log = get_logger(__name__)

#: Scorings of a key under way at the same time, and processes of all at work; each has its table in memory.
_OF_A_KEY, _AT_ONCE = 2, 2
#: A process waits for its batch for so many seconds. Then it ends, and another one goes on when the batch has ended:
#: one that takes days holds up nobody, and no memory.
_PATIENCE = 30.0
#: Tables looked at at the same time, and for how long, in seconds.
_INSPECTED_AT_ONCE, _INSPECT_SECONDS = 2, 60.0
_RETRY_SECONDS = 5.0


class ScoringJobs:
    """``start``, then use; ``close`` before the host stops: what runs goes on at the next start."""

    def __init__(self, host: BatchHost) -> None:
        self._host = host
        self._running: dict[str, asyncio.Task[None]] = {}
        self._turns: defaultdict[str | None, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_OF_A_KEY))
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._inspecting = asyncio.Semaphore(_INSPECTED_AT_ONCE)

    @functools.cached_property
    def store(self) -> JobStore:
        return JobStore(places(self._host.settings.storage).scorings)

    def start(self) -> None:
        self.store.tidy()
        for job in self.store.all(EVERYTHING):
            if job.status is JobStatus.RUNNING:
                self._run(job)

    async def close(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def inspect(self, job: ScoreJob) -> TableFacts:
        """What the job's table is. Raises UserError."""
        async with self._inspecting, started_worker() as worker:
            await worker.say(Inspect(str(self.store.folder(job) / job.file)))
            try:
                async with asyncio.timeout(_INSPECT_SECONDS):
                    found = await worker.hear()
            except TimeoutError:
                raise UserError(f"The table took more than {_INSPECT_SECONDS:.0f} seconds to read.") from None
        if not isinstance(found, Inspected):
            raise UserError(found.message if isinstance(found, Refused) else "The table cannot be read.")
        return found.facts

    async def check(self, job: ScoreJob, form: ScoreForm | RankForm) -> None:
        """Raises UserError for what cannot work, where that can be told before anything is asked."""
        async with self._inspecting, started_worker() as worker:
            await worker.say(Check(self._task(ScopedHost(self._host, job.scope), job, form)))
            try:
                async with asyncio.timeout(_INSPECT_SECONDS):
                    found = await worker.hear()
            except TimeoutError:
                # A table that takes so long is checked when it is its turn.
                return
        if isinstance(found, Refused):
            raise UserError(found.message)

    def _task(self, mine: ScopedHost, job: ScoreJob, form: ScoreForm | RankForm) -> Score:
        labels = SCORE in mine.dispatcher.endpoints
        return Score(str(self.store.folder(job)), job.file, job.table, form, labels, job.attempt)

    def begin(self, job: ScoreJob, form: ScoreForm | RankForm) -> None:
        """From the beginning."""
        shutil.rmtree(self.store.folder(job) / WORK, ignore_errors=True)
        job.batches, job.step, job.plan = [], None, None
        self.go_on(job, form)

    def go_on(self, job: ScoreJob, form: ScoreForm | RankForm) -> None:
        """From where it is. A ranking's ``form`` may have another budget, and that is all."""
        job.form, job.status, job.error, job.ended_at = form, JobStatus.RUNNING, None, None
        job.attempt = secrets.token_hex(8)
        job.summaries, job.wanted, job.best = [], None, None
        self.store.save(job)
        self._run(job)

    async def cancel(self, job: ScoreJob) -> ScoreJob:
        """The job as it is then. Its batches are cancelled, too."""
        task = self._running.get(job.id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        job = self.store.get(job.id, EVERYTHING) or job
        if job.status is not JobStatus.RUNNING:
            return job
        self._end(job, JobStatus.CANCELLED)
        for batch_id in job.batches:
            with contextlib.suppress(ApiError):
                await ScopedHost(self._host, job.scope).batches.cancel(batch_id)
        return self.store.get(job.id, EVERYTHING) or job

    async def remove(self, job: ScoreJob) -> None:
        """With its table and its scores; its batches stay."""
        await self.cancel(job)
        await asyncio.to_thread(self.store.remove, job)

    def _run(self, job: ScoreJob) -> None:
        task = self._running[job.id] = asyncio.create_task(self._until_ended(job))
        task.add_done_callback(lambda _: self._running.pop(job.id, None))

    async def _until_ended(self, job: ScoreJob) -> None:
        async with self._turns[job.scope.key_id]:
            while True:
                try:
                    self._end(job, *await self._outcome(job))
                    return
                except (StorageError, OSError) as error:
                    # A full disk, for example: the batches wait as well.
                    log.warning("a scoring waits", scoring=job.id, reason=str(error))
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _outcome(self, job: ScoreJob) -> tuple[JobStatus, str | None]:
        """How it ended, and why it failed if it did. Raises what storage raises."""
        try:
            match await self._work(job):
                case Finished(summaries, wanted):
                    job.summaries, job.wanted = summaries, wanted
                case Planned(plan):
                    job.plan = plan
                    return JobStatus.PLANNED, None
                case Ranked(summary):
                    job.best = summary
        except UserError as error:
            return JobStatus.FAILED, str(error)
        except (StorageError, OSError):
            raise
        except Exception as error:
            log.error("a scoring failed unexpectedly", scoring=job.id, exc_info=error)
            return JobStatus.FAILED, f"It failed unexpectedly: {error!r}."
        return JobStatus.COMPLETED, None

    async def _work(self, job: ScoreJob) -> End:
        """Raises UserError, and what storage raises."""
        mine = ScopedHost(self._host, job.scope)
        while True:
            before = len(job.batches)
            try:
                async with self._places:
                    found = await self._work_while_it_moves(mine, job)
            except WorkerKilled:
                # What it has asked for since it began is not asked again, so that it may get further next time.
                if len(job.batches) == before:
                    raise
                continue
            if not isinstance(found, _WaitsFor):
                return found
            await ended(mine, found.batch_id)

    async def _work_while_it_moves(self, mine: ScopedHost, job: ScoreJob) -> End | _WaitsFor:
        assert job.form is not None
        async with started_worker() as worker:
            await worker.say(self._task(mine, job, job.form))
            while True:
                match await worker.hear():
                    case RunPass() as asked:
                        answer = await self._pass(mine, job, asked)
                        if isinstance(answer, _WaitsFor):
                            return answer
                        await worker.say(answer)
                    case Began(step):
                        self._note_step(job, step)
                    case Finished() | Planned() | Ranked() as end:
                        return end
                    case Refused(message):
                        raise UserError(message)
                    case Inspected() | Checked():
                        raise AssertionError("nobody asked for it")

    async def _pass(self, mine: ScopedHost, job: ScoreJob, asked: RunPass) -> ToWorker | _WaitsFor:
        try:
            place = Path(asked.folder).relative_to(self.store.folder(job) / WORK)
            title = f"{job.table[:200]}: {_pass_name(place)}"
            batch_id = await begin_pass(mine, asked, title, await self._computation(mine, asked.model))
            if batch_id not in job.batches:
                if place.parts[0] == "proxy":
                    self._note_step(job, Step("The proxy is asked.", job.step.judged if job.step is not None else 0, 0))
                job.batches = [*job.batches, batch_id]
                self.store.save(job)
            try:
                async with asyncio.timeout(_PATIENCE):
                    batch = await ended(mine, batch_id)
            except TimeoutError:
                return _WaitsFor(batch_id)
            return await end_pass(mine, asked, batch)
        except UserError as error:
            return Refused(str(error))

    def _note_step(self, job: ScoreJob, step: Step) -> None:
        """The furthest one: one that goes on tells those before it, too."""
        if job.step is not None and (
            step.judged < job.step.judged or (step.judged, step.told) == (job.step.judged, job.step.told)
        ):
            return
        job.step = msgspec.structs.replace(step, since=len(job.batches))
        self.store.save(job)

    async def _computation(self, mine: ScopedHost, model: str) -> Computation:
        dispatcher, several = mine.dispatcher, mine.storage.metadata.shared
        own_name = dispatcher.models.get(model, model)
        return await computation_of_server(dispatcher.engine, mine.settings.engine, own_name, several)

    def _end(self, job: ScoreJob, status: JobStatus, error: str | None = None) -> None:
        # As a copy: what could not be written down has not ended.
        ended = msgspec.structs.replace(job, status=status, error=error, ended_at=int(time.time()))
        self.store.save(ended)
        if ended.can_go_on:
            return
        # What the passes asked and were answered; their batches have it.
        shutil.rmtree(self.store.folder(job) / WORK, ignore_errors=True)


def _pass_name(place: Path) -> str:
    """Of one in that folder: "1" of a scoring, "judge 4, 1" of a ranking's fourth group of rows."""
    *within, name = place.parts
    if not within:
        return name
    numbers = [f" {int(each[:3]) + 1}" for each in within if each[:3].isdecimal() and each[3:4] == "-"]
    return f"{within[0]}{''.join(numbers)}, {name}"


class _WaitsFor(NamedTuple):
    batch_id: str
