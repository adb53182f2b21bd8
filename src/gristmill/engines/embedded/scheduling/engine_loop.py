"""The worker's engine loop body: prepared requests in, one step of the model at a time, frames out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from gristmill.engines.embedded.generation import Generation, GenerationRequest
from gristmill.engines.embedded.label_scoring import LabelProbe, LabelScoring
from gristmill.engines.embedded.model_runner import ModelRunner, Span, Vocabulary
from gristmill.engines.embedded.prefix_files.kv_transfer import KvTransfer
from gristmill.engines.embedded.prefix_files.prefix_folder import prefixes_folder
from gristmill.engines.embedded.prefix_files.prefix_keeper import PrefixKeeper
from gristmill.engines.embedded.prefix_files.prefix_store import PrefixStore
from gristmill.engines.embedded.preparation import Prepared
from gristmill.engines.embedded.sampler import GenerationState, Logits, Sampled, sample
from gristmill.engines.embedded.scheduling.out_of_room import OutOfRoom
from gristmill.engines.embedded.scheduling.scheduler import Scheduler
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.scheduling.step_abort import StepAbort, StepAborted
from gristmill.engines.embedded.scheduling.step_pace import StepPace
from gristmill.engines.embedded.scheduling.step_plan import Chunk, StepLimits, StepPlan
from gristmill.engines.embedded.worker.frames import (
    Decoded,
    Done,
    Failed,
    FromWorker,
    KeepPrefixes,
    Notice,
    PrefixRead,
    Scored,
    failed_by,
)
from gristmill.engines.protocol import Completion


class RunningStep(NamedTuple):
    """``begun`` by the monotonic clock; ``abortable``: nobody is waiting for one of its sequences, and an abort would
    cost no more than the step."""

    abort: StepAbort
    begun: float
    tokens: int
    abortable: bool


class EngineLoop:
    def __init__(
        self,
        model: ModelRunner[Any, Any],
        vocabulary: Vocabulary,
        ends: frozenset[int],
        step_tokens: int,
        max_rows: int,
        emit: Callable[[FromWorker], None],
    ) -> None:
        """``ends``: token ids that end an answer. ``emit`` is called from ``enter`` and ``step``, and by a thread that
        writes prefixes to the disk."""
        self._model = model
        self._vocabulary = vocabulary
        self._ends = ends
        self._emit = emit
        self._pace = StepPace(step_tokens)
        #: Read by other threads.
        self._running: RunningStep | None = None
        self._max_rows = max_rows
        self.scheduler = Scheduler(StepLimits(step_tokens, max_rows), model.new_memory())
        self._requests: dict[int, GenerationRequest] = {}
        self._generations: dict[Sequence, tuple[GenerationRequest, Generation]] = {}
        self._scorings: dict[int, LabelScoring] = {}
        self._probes: dict[Sequence, LabelProbe] = {}
        self._keeper: PrefixKeeper | None = None

    def keep_prefixes(self, wanted: KeepPrefixes) -> None:
        """On disk, from now on; where the library cannot export KV state, or the disk cannot be used, none are."""
        if not isinstance(self._model, KvTransfer) or self._model.kv_format is None:
            return
        made_by = f"{wanted.made_by}; {self._model.kv_format}"
        store = PrefixStore(
            prefixes_folder(), made_by, wanted.model, wanted.most_bytes, lambda sentence: self._emit(Notice(sentence))
        )
        if store.usable:
            self._keeper = PrefixKeeper(store, self._model, self.scheduler.memory, self._model.make_moves)
            self.scheduler.find_on_disk = self._keeper.find

    @property
    def busy(self) -> bool:
        """Whether there is something to do for ``step``."""
        return bool(self._requests or self._scorings) or (self._keeper is not None and self._keeper.busy)

    def enter(self, prepared: Prepared) -> None:
        """Take a request up, or pass on why there is none."""
        if isinstance(prepared, Failed):
            self._emit(prepared)
        elif isinstance(prepared, LabelScoring):
            self._scorings[prepared.id] = prepared
            for _ in range(self._max_rows):
                self._probe_next(prepared)
        else:
            assert isinstance(prepared, GenerationRequest)
            self._enter_request(prepared)

    def _enter_request(self, request: GenerationRequest) -> None:
        self._requests[request.id] = request
        for generation in request.generations:
            self._generations[generation.sequence] = (request, generation)
        for generation in request.generations:
            # What a grammar forces at the beginning is there already; it may be all.
            self._release(request, generation)
            if generation.finish_reason is None:
                self.scheduler.add(generation.sequence)

    def _probe_next(self, scoring: LabelScoring) -> None:
        probe = scoring.next_probe()
        if probe is not None:
            self._probes[probe.sequence] = probe
            self.scheduler.add(probe.sequence)

    def cancel(self, request_id: int) -> None:
        """Frees the request's KV memory at once, that is between two steps. Unknown ids have finished already."""
        scoring = self._scorings.pop(request_id, None)
        for probe in scoring.probes if scoring else ():
            del self._probes[probe.sequence]
            self.scheduler.remove(probe.sequence)
        request = self._requests.pop(request_id, None)
        for generation in request.generations if request else ():
            if self._generations.pop(generation.sequence, None) is not None:
                self.scheduler.remove(generation.sequence)

    def interrupt(self) -> None:
        """An interactive request is ready for ``enter``: abort the step that is computed where it would take too long.
        Safe from any thread. (One that comes just before a step begins waits for it.)"""
        running = self._running
        if running is None or not running.abortable:
            return
        if self._pace.worth_aborting(running.tokens, time.monotonic() - running.begun):
            running.abort.ask()

    def step(self) -> None:
        """Compute one step and emit what it completes. Where it is aborted nothing has happened, except that there is
        room already for what it was to compute. Raises OutOfRoom where there is none for a single token."""
        if self.scheduler.sequences:
            self._compute_step()
        if self._keeper is not None:
            self._keeper.work(idle=not self.scheduler.sequences)

    def _compute_step(self) -> None:
        begin = time.monotonic()
        interactive = self.scheduler.interactive
        if interactive:
            self._pace.asked(begin)
        # Alone it need not be spared.
        step = self.scheduler.plan(self._pace.tokens(begin) if self.scheduler.sequences > 1 else None)
        self._model.make_moves(step.moves)
        if not step.chunks and self._keeper is not None and self._keeper.give_up():
            # There was no memory for anything else. Now there is.
            return
        if self._keeper is not None and not self._read_prefixes(step, self._keeper):
            self.scheduler.abort(step)
            return
        begin = time.monotonic()
        wanted = [self._wanted(chunk) for chunk in step.chunks]
        tokens = sum(chunk.tokens for chunk in step.chunks)
        abortable = not interactive and self.scheduler.abortable(step)
        self._running = running = RunningStep(StepAbort(), begin, tokens, abortable)
        try:
            logits = self._model.forward(self._spans(step, wanted), running.abort)
        except StepAborted:
            self._pace.aborted()
            self.scheduler.abort(step)
            return
        except OutOfRoom as error:
            if not self.scheduler.shrink(step):
                raise
            self._emit(Notice(_told(step, error, self.scheduler.limits)))
            return
        finally:
            self._running = None
        self.scheduler.advance(step)
        self._take(step.chunks, wanted, logits)
        self._pace.computed(tokens, time.monotonic() - begin, interactive)

    def _read_prefixes(self, step: StepPlan, keeper: PrefixKeeper) -> bool:
        """Of the sequences that begin, from the disk; False where one was not read as it was found, so that there is
        more to compute than was planned."""
        complete = True
        for begun in step.begun:
            if begun.found is not None:
                asked = time.monotonic()
                computed = keeper.read(begun.sequence, begun.found, begun.matched)
                if computed > begun.matched:
                    self._emit(PrefixRead(computed - begun.matched, time.monotonic() - asked))
                if computed < begun.found.tokens:
                    self.scheduler.lose(begun, computed)
                    complete = False
                self.scheduler.memory.note_computed(begun.sequence)
                # Before it goes on: where the cache knows sequences as a whole only, others begin with this one.
                self.scheduler.keep(begun.sequence)
                self._model.make_moves(self.scheduler.memory.take_moves())
            keeper.note(self._request_id(begun.sequence), begun.sequence)
        return complete

    def _request_id(self, sequence: Sequence) -> int:
        probe = self._probes.get(sequence)
        return probe.scoring.id if probe is not None else self._generations[sequence][0].id

    def _spans(self, step: StepPlan, wanted: list[tuple[int, ...]]) -> list[Span[Any]]:
        place = self.scheduler.memory.place
        return [
            Span(sequence.tokens[start : start + tokens], start, place(sequence), offsets)
            for (sequence, start, tokens, _), offsets in zip(step.chunks, wanted, strict=True)
        ]

    def _wanted(self, chunk: Chunk) -> tuple[int, ...]:
        """Which of the chunk's tokens have logits that somebody wants."""
        if probe := self._probes.get(chunk.sequence):
            return probe.offsets(chunk)
        return (chunk.tokens - 1,) if chunk.samples else ()

    def _take(self, chunks: list[Chunk], wanted: list[tuple[int, ...]], logits: Logits) -> None:
        """Hand the logits, in the order of the chunks, to the probes and generations they are for."""
        sampling: list[tuple[GenerationRequest, Generation]] = []
        places: list[int] = []
        begin = 0
        for chunk, offsets in zip(chunks, wanted, strict=True):
            end = begin + len(offsets)
            if probe := self._probes.get(chunk.sequence):
                self._guard(probe.scoring.id, functools.partial(self._take_probe, probe, chunk, logits[begin:end]))
            elif offsets:
                sampling.append(self._generations[chunk.sequence])
                places.append(begin)
            begin = end
        if sampling:
            self._sample(sampling, logits if len(places) == len(logits) else logits[places])

    def _take_probe(self, probe: LabelProbe, chunk: Chunk, logits: Logits) -> None:
        probe.take(chunk, logits)
        if not chunk.samples:
            return
        scoring = probe.scoring
        del self._probes[probe.sequence]
        scoring.probes.remove(probe)
        self.scheduler.remove(probe.sequence)
        self._probe_next(scoring)
        if scoring.done:
            del self._scorings[scoring.id]
            self._emit(Scored(scoring.id, scoring.scores()))

    def _sample(self, sampling: list[tuple[GenerationRequest, Generation]], logits: Logits) -> None:
        states = [generation.state() for _, generation in sampling]
        for (request, generation), token in zip(sampling, self._sample_each(states, logits), strict=True):
            # Another choice of the same request may have failed just now.
            if generation.sequence in self._generations:
                self._guard(request.id, functools.partial(self._accept, request, generation, token))

    @staticmethod
    def _sample_each(states: list[GenerationState], logits: Logits) -> list[Sampled | Exception]:
        """Together, which is faster; where that fails, one by one, to see whose fault it is."""
        try:
            return list(sample(logits, states))
        except Exception:
            sampled: list[Sampled | Exception] = []
            for index, state in enumerate(states):
                try:
                    sampled += sample(logits[index : index + 1], [state])
                except Exception as error:
                    sampled.append(error)
            return sampled

    def _accept(self, request: GenerationRequest, generation: Generation, token: Sampled | Exception) -> None:
        if isinstance(token, Exception):
            raise token
        generation.accept(token, self._vocabulary, self._ends)
        self._release(request, generation)

    def _release(self, request: GenerationRequest, generation: Generation) -> None:
        """Pass on what has become certain, and what ends with it."""
        news = generation.news() if request.stream else None
        if news is not None:
            self._emit(Decoded(request.id, news))
        if generation.finish_reason is None:
            return
        del self._generations[generation.sequence]
        self.scheduler.remove(generation.sequence)
        if not any(other.sequence in self._generations for other in request.generations):
            del self._requests[request.id]
            self._emit(Done(request.id, _completion(request)))

    def _guard(self, request_id: int, change: Callable[[], None]) -> None:
        """Whatever fails for one request ends that one, and no other."""
        try:
            change()
        except BaseException as error:
            self.cancel(request_id)
            self._emit(failed_by(request_id, error))


def _told(step: StepPlan, error: OutOfRoom, limits: StepLimits) -> str:
    tokens = sum(chunk.tokens for chunk in step.chunks)
    return (
        f"There was no room for a step of {tokens} tokens in {len(step.chunks)} rows: {error}. They are computed "
        f"again, and from now on in steps of at most {limits.step_tokens} tokens in {limits.max_rows} rows."
    )


def _completion(request: GenerationRequest) -> Completion:
    prompt = request.generations[0].sequence
    return Completion(
        model=request.model,
        choices=tuple(generation.result() for generation in request.generations),
        prompt_tokens=prompt.prompt_tokens,
        completion_tokens=sum(len(generation.generated) for generation in request.generations),
        # The beginning of an answer that a grammar forces may have been in the cache too.
        cached_tokens=min(prompt.cached_tokens or 0, prompt.prompt_tokens),
        forced_tokens=sum(generation.forced_tokens for generation in request.generations),
    )
