"""The worker's engine loop body: requests in, one step of the model at a time, frames out."""

from __future__ import annotations

import time
from collections.abc import Callable

from gristmill.engines.openvino.frames import Done, Failed, FromWorker, Submit, Text
from gristmill.engines.openvino.paged import PagedModel, Span
from gristmill.engines.openvino.prompt import JobReader
from gristmill.engines.openvino.row import Row
from gristmill.engines.openvino.sampler import sample
from gristmill.engines.openvino.scheduler import Limits, Scheduler
from gristmill.engines.openvino.sequence import Sequence
from gristmill.engines.openvino.vocabulary import Vocabulary
from gristmill.engines.protocol import Completion, EngineError, Timings


class Running:
    """A request and its rows; times in seconds of the monotonic clock."""

    def __init__(self, submit: Submit, model: str, rows: list[Row]) -> None:
        self.id = submit.id
        self.model = model
        self.stream = submit.stream
        self.rows = rows
        self.submitted = time.monotonic()
        self.started: float | None = None
        self.first_token: float | None = None


class Runner:
    def __init__(
        self,
        model: PagedModel,
        vocabulary: Vocabulary,
        reader: JobReader,
        ends: frozenset[int],
        step_tokens: int,
        max_rows: int,
        emit: Callable[[FromWorker], None],
    ) -> None:
        """``ends``: token ids that end an answer. ``emit`` is called from ``submit`` and ``step``."""
        self._model = model
        self._vocabulary = vocabulary
        self._reader = reader
        self._ends = ends
        self._emit = emit
        self.scheduler = Scheduler(Limits(model.block_size, model.blocks, step_tokens, max_rows))
        self._running: dict[int, Running] = {}
        self._rows: dict[Sequence, tuple[Running, Row]] = {}

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def submit(self, submit: Submit) -> None:
        request = submit.chat or submit.text
        assert request is not None
        try:
            job = self._reader.read(request)
        except EngineError as error:
            self._emit(Failed(submit.id, error.kind, error.message, error.status, error.param, error.code))
            return
        running = Running(submit, request.model, [Row(job, choice) for choice in range(len(job.samplings))])
        self._running[submit.id] = running
        for row in running.rows:
            self._rows[row.sequence] = (running, row)
            self.scheduler.add(row.sequence)

    def cancel(self, request_id: int) -> None:
        """Frees the request's blocks at once, that is between two steps. Unknown ids have finished already."""
        running = self._running.pop(request_id, None)
        for row in running.rows if running else ():
            if row.finish_reason is None:
                del self._rows[row.sequence]
                self.scheduler.remove(row.sequence)

    def step(self) -> None:
        """Compute one step and emit what it completes."""
        step = self.scheduler.plan()
        for source, target in step.copies:
            self._model.copy_block(source, target)
        now = time.monotonic()
        for work in step.work:
            running, _ = self._rows[work.sequence]
            running.started = running.started or now
        logits = self._model.forward(
            [
                Span(
                    work.sequence.tokens[work.start : work.start + work.tokens], work.start, work.sequence.blocks,
                    (work.tokens - 1,) if work.samples else (),
                )
                for work in step.work
            ]
        )  # fmt: skip
        self.scheduler.advance(step)
        sampling = [self._rows[work.sequence] for work in step.work if work.samples]
        for (running, row), token in zip(sampling, sample(logits, [row.state() for _, row in sampling]), strict=True):
            running.first_token = running.first_token or time.monotonic()
            released = row.accept(token, self._vocabulary, self._ends)
            if released and running.stream:
                self._emit(Text(running.id, row.choice, released))
            if row.finish_reason is not None:
                self._finish_row(running, row)

    def _finish_row(self, running: Running, row: Row) -> None:
        del self._rows[row.sequence]
        self.scheduler.remove(row.sequence)
        if all(other.finish_reason is not None for other in running.rows):
            del self._running[running.id]
            self._emit(Done(running.id, _completion(running)))


def _completion(running: Running) -> Completion:
    now = time.monotonic()
    started, first = running.started or now, running.first_token or now
    prompt = running.rows[0].sequence
    return Completion(
        model=running.model,
        choices=tuple(row.result() for row in running.rows),
        prompt_tokens=prompt.prompt_tokens,
        completion_tokens=sum(len(row.generated) for row in running.rows),
        cached_tokens=prompt.cached_tokens or 0,
        timings=Timings(started - running.submitted, first - started, now - first),
    )
