"""The worker's engine loop body: requests in, one step of the model at a time, frames out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from gristmill.engines.openvino.frames import Done, Failed, FromWorker, Scored, Submit, SubmitScore, Text
from gristmill.engines.openvino.paged import PagedModel
from gristmill.engines.openvino.prompt import JobReader
from gristmill.engines.openvino.row import Row
from gristmill.engines.openvino.sampler import Logits, sample
from gristmill.engines.openvino.scheduler import Limits, Scheduler, Work
from gristmill.engines.openvino.scoring import Probe, Scoring
from gristmill.engines.openvino.sequence import Sequence
from gristmill.engines.openvino.span import Span
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
        self._scorings: dict[int, Scoring] = {}
        self._probes: dict[Sequence, Probe] = {}

    @property
    def busy(self) -> bool:
        return bool(self._running or self._scorings)

    def submit(self, submit: Submit) -> None:
        request = submit.chat or submit.text
        assert request is not None
        try:
            job = self._reader.read(request)
        except EngineError as error:
            self._emit(_failed(submit.id, error))
            return
        running = Running(submit, request.model, [Row(job, choice) for choice in range(len(job.samplings))])
        self._running[submit.id] = running
        for row in running.rows:
            self._rows[row.sequence] = (running, row)
        for row in running.rows:
            self._enter(running, row, functools.partial(row.jump_forward, self._vocabulary))
            if row.sequence in self._rows:
                self.scheduler.add(row.sequence)

    def submit_score(self, submit: SubmitScore) -> None:
        try:
            scoring = Scoring(submit.id, submit.model, self._reader.read_score(submit))
        except EngineError as error:
            self._emit(_failed(submit.id, error))
            return
        self._scorings[submit.id] = scoring
        for probe in scoring.probes:
            self._probes[probe.sequence] = probe
            self.scheduler.add(probe.sequence)

    def cancel(self, request_id: int) -> None:
        """Frees the request's blocks at once, that is between two steps. Unknown ids have finished already."""
        scoring = self._scorings.pop(request_id, None)
        for probe in scoring.probes if scoring else ():
            if self._probes.pop(probe.sequence, None) is not None:
                self.scheduler.remove(probe.sequence)
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
        wanted = [self._wanted(work) for work in step.work]
        logits = self._model.forward(
            [
                Span(
                    work.sequence.tokens[work.start : work.start + work.tokens],
                    work.start,
                    work.sequence.blocks,
                    offsets,
                )
                for work, offsets in zip(step.work, wanted, strict=True)
            ]
        )
        self.scheduler.advance(step)
        self._take(step.work, wanted, logits)

    def _wanted(self, work: Work) -> tuple[int, ...]:
        """Which of the work's tokens have logits that somebody wants."""
        if probe := self._probes.get(work.sequence):
            return probe.offsets(work)
        running, _ = self._rows[work.sequence]
        running.started = running.started or time.monotonic()
        return (work.tokens - 1,) if work.samples else ()

    def _take(self, done: list[Work], wanted: list[tuple[int, ...]], logits: Logits) -> None:
        """Hand the logits, in the order of the work, to the probes and rows they are for."""
        sampling: list[tuple[Running, Row]] = []
        places: list[int] = []
        begin = 0
        for work, offsets in zip(done, wanted, strict=True):
            end = begin + len(offsets)
            if work.sequence in self._probes:
                self._take_probe(work, logits[begin:end])
            elif offsets:
                sampling.append(self._rows[work.sequence])
                places.append(begin)
            begin = end
        if sampling:
            self._sample(sampling, logits if len(places) == len(logits) else logits[places])

    def _take_probe(self, work: Work, logits: Logits) -> None:
        probe = self._probes[work.sequence]
        probe.take(work, logits)
        if not work.samples:
            return
        del self._probes[work.sequence]
        self.scheduler.remove(work.sequence)
        scoring = probe.scoring
        scoring.missing -= 1
        if not scoring.missing:
            del self._scorings[scoring.id]
            self._emit(Scored(scoring.id, scoring.scores()))

    def _sample(self, sampling: list[tuple[Running, Row]], logits: Logits) -> None:
        states = [row.state() for _, row in sampling]
        for (running, row), token in zip(sampling, sample(logits, states), strict=True):
            running.first_token = running.first_token or time.monotonic()
            self._enter(running, row, functools.partial(row.accept, token, self._vocabulary, self._ends))

    def _enter(self, running: Running, row: Row, change: Callable[[], str]) -> None:
        """Have the row take tokens and pass on the text they release; a request whose grammar fails is answered so."""
        if row.sequence not in self._rows:
            return
        try:
            released = change()
        except EngineError as error:
            self.cancel(running.id)
            self._emit(_failed(running.id, error))
            return
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
        # The beginning of an answer that a grammar forces may have been in the cache too.
        cached_tokens=min(prompt.cached_tokens or 0, prompt.prompt_tokens),
        forced_tokens=sum(row.forced_tokens for row in running.rows),
        timings=Timings(started - running.submitted, first - started, now - first),
    )


def _failed(request_id: int, error: EngineError) -> Failed:
    return Failed(request_id, error.kind, error.message, error.status, error.param, error.code)
