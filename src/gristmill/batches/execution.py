"""Running a batch's rows: workers take rows from the feed, ask the engine, and log results."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from gristmill.batches import output_lines
from gristmill.batches.batch_trace import BatchTrace
from gristmill.batches.planned_reuse import planned_reuse
from gristmill.batches.result_log import ResultLog
from gristmill.batches.reusable_answers import ReusableAnswers
from gristmill.batches.row_feed import Input, RowFeed
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.fair_share import Flow, weight
from gristmill.dispatch.stop import Stop, Stopped
from gristmill.engines.errors import EngineError
from gristmill.inference.answer import Answer, Backend
from gristmill.inference.endpoints import ENDPOINTS
from gristmill.inference.failures import api_error
from gristmill.storage.errors import StorageError
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, Lease
from gristmill.storage.row_records import Result
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.progress import Counts
from gristmill.wire.errors import ApiError, server_error
from gristmill.wire.line_body import completed_body, default_fields

log = get_logger(__name__)


#: So that some of a batch's rows always wait: a batch that had none waiting would lose its turn at every answer.
_WORKERS_A_PLACE = 2
#: Results of rows that get another's answer, made and stored together.
_FOLLOWERS_AT_ONCE = 256


class Execution:
    """One run over the rows that have no result yet."""

    def __init__(
        self,
        storage: Storage,
        batch: BatchRecord,
        dispatcher: Dispatcher,
        lease: Lease,
        reusable_answers: ReusableAnswers | None = None,
        quiet_since: float | None = None,
        trace: BatchTrace | None = None,
    ) -> None:
        self._batch = batch
        self._endpoint = ENDPOINTS[batch.endpoint]
        self._dispatcher = dispatcher
        self.flow = Flow(batch.id, weight(batch.priority, None, 0))
        self._reusable_answers = reusable_answers
        self._trace = trace
        self._feed = RowFeed(storage, batch, reusable_answers)
        self._log = ResultLog(storage.metadata.rows, lease, planned_reuse(batch), quiet_since)
        self._defaults = default_fields(batch.defaults)
        cached = None if batch.unreported_rows else batch.cached_tokens
        done = batch.completed + batch.failed
        self.began_with = Counts(done, batch.failed, batch.input_tokens, cached, batch.output_tokens)
        self.counts = self.began_with
        #: Why no more rows could be read.
        self._unread: StorageError | None = None

    async def run(self, stop: Stop) -> None:
        """Return when every row has a result, or soon after ``stop`` is requested: then nothing is begun any more, and
        what is in flight when the grace period is over goes unanswered. Raises what storage raises; rows whose results
        were not stored run again another time."""
        ask = Backend(self._dispatcher.asker(stop, self.flow), self._dispatcher.forwards)
        async with asyncio.TaskGroup() as group:
            storing = group.create_task(self._log.run())
            count = _WORKERS_A_PLACE * self._dispatcher.window
            workers = [group.create_task(self._work(ask, stop)) for _ in range(count)]
            stopping = group.create_task(self._end_with(stop, workers))
            try:
                await asyncio.wait(workers)
            finally:
                stopping.cancel()
                self._feed.close()
            self._log.finish()
            await storing
            if self._reusable_answers is not None:
                await self._reusable_answers.flush()
            if self._unread is not None:
                raise self._unread

    @property
    def last_result_at(self) -> float:
        """When a result was last stored, or the rows began to be run, in Unix time."""
        return self._log.stored_at

    def weigh(self, priority: int, eta: float | None) -> None:
        """Adjust the batch's share of the engine to how much time it needs and has left, in seconds."""
        self.flow.weight = weight(priority, eta, self._batch.expires_at - time.time())

    async def _end_with(self, stop: Stop, workers: Sequence[asyncio.Task[None]]) -> None:
        await stop.wait()
        self._feed.close()
        await stop.wait_overdue()
        for worker in workers:
            worker.cancel()

    async def _work(self, ask: Backend, stop: Stop) -> None:
        while not stop.requested and (row := await self._next()) is not None:
            try:
                outcome = await self._outcome(row, ask)
                if row.followers:
                    await self._share(row, outcome, ask)
                await self._store([self._result(row.line, row.custom_id, outcome)])
            except Stopped:
                return

    async def _next(self) -> Input | None:
        try:
            return await self._feed.next()
        except StorageError as error:
            # Told when what is in flight has been answered and stored: it costs more than to read it again.
            self._unread = self._unread or error
            self._feed.close()
            return None

    async def _share(self, row: Input, outcome: Answer | ApiError, ask: Backend) -> None:
        """Store the results of the rows that are answered with the row's answer, some at a time as there may be
        millions, and before its own: a row that has a result has left no follower behind."""
        waiting = deque(row.followers)
        while waiting and isinstance(outcome, ApiError) and _worth_asking_again(outcome):
            outcome = await self._outcome(row, ask)
            follower = waiting.popleft()
            await self._store([self._result(follower.line, follower.custom_id, outcome)])
        copied = outcome.without_tokens() if isinstance(outcome, Answer) else outcome
        while waiting:
            some = [waiting.popleft() for _ in range(min(len(waiting), _FOLLOWERS_AT_ONCE))]
            await self._store([self._result(each.line, each.custom_id, copied) for each in some])

    async def _store(self, results: list[Result]) -> None:
        for result in results:
            self._count(result)
        await self._log.add(results)

    def _result(self, line: int, custom_id: str, outcome: Answer | ApiError) -> Result:
        if isinstance(outcome, Answer):
            return output_lines.success(self._batch.id, line, custom_id, outcome)
        return output_lines.failure(self._batch.id, line, custom_id, outcome)

    async def _outcome(self, row: Input, ask: Backend) -> Answer | ApiError:
        if row.reusable.body is not None:
            return Answer.reused_body(row.reusable.body)
        if self._trace is not None and self._trace.samples(row.custom_id):
            outcome = await self._trace.row(row.line, self._asked(row, ask))
        else:
            outcome = await self._asked(row, ask)
        if self._reusable_answers is not None and row.reusable.key is not None and isinstance(outcome, Answer):
            await self._reusable_answers.keep(row.reusable.key, outcome)
        return outcome

    async def _asked(self, row: Input, ask: Backend) -> Answer | ApiError:
        try:
            return await self._endpoint.answer(completed_body(row.data, self._defaults), ask)
        except EngineError as error:
            return api_error(error)
        except ApiError as error:
            return error
        except (Stopped, asyncio.CancelledError):
            raise
        except RecursionError:
            # How deep JSON may nest depends on the stack it is parsed on: here it is less than where it was checked.
            return ApiError(400, "The request is nested too deeply to be read.")
        except Exception as error:
            # Whatever goes wrong with one row, it is that row's result and never the batch's end.
            log.error("a row failed unexpectedly", batch=self._batch.id, line=row.line, exc_info=error)
            return server_error(500, f"The request failed unexpectedly: {error!r}.")

    def _count(self, result: Result) -> None:
        counts = self.counts
        cached = None
        if counts.cached_tokens is not None and result.cached_tokens is not None:
            cached = counts.cached_tokens + result.cached_tokens
        self.counts = Counts(
            counts.rows + 1,
            counts.failed + (not result.succeeded),
            counts.prompt_tokens + result.prompt_tokens,
            cached,
            counts.completion_tokens + result.completion_tokens,
        )


def _worth_asking_again(error: ApiError) -> bool:
    """Whether a row that asks the same might fare better: the engine failed, not the request."""
    return error.status >= 500 or error.status == 429
