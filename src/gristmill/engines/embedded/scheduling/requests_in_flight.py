"""Requests that the engine loop has taken up: their sequences in the scheduler, and what a step's logits complete."""

from __future__ import annotations

import functools
from collections.abc import Callable

from gristmill.engines.answer_frames import Decoded, Done, Scored
from gristmill.engines.embedded.generation import Generation, GenerationRequest
from gristmill.engines.embedded.label_scoring import LabelProbe, LabelScoring
from gristmill.engines.embedded.model_runner import Vocabulary
from gristmill.engines.embedded.preparation import Prepared
from gristmill.engines.embedded.sampler import GenerationState, Logits, Sampled, sample
from gristmill.engines.embedded.scheduling.scheduler import Scheduler
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.scheduling.step_plan import Chunk
from gristmill.engines.embedded.worker.frames import Failed, FromWorker, failed_by
from gristmill.engines.protocol import Completion


class RequestsInFlight:
    def __init__(
        self,
        scheduler: Scheduler,
        vocabulary: Vocabulary,
        ends: frozenset[int],
        max_rows: int,
        emit: Callable[[FromWorker], None],
    ) -> None:
        """``ends``: token ids that end an answer. ``max_rows``: probes of a request for scores that are scheduled at a
        time. ``emit`` is called from ``enter`` and ``take``."""
        self._scheduler = scheduler
        self._vocabulary = vocabulary
        self._ends = ends
        self._max_rows = max_rows
        self._emit = emit
        self._requests: dict[int, GenerationRequest] = {}
        self._generations: dict[Sequence, tuple[GenerationRequest, Generation]] = {}
        self._scorings: dict[int, LabelScoring] = {}
        self._probes: dict[Sequence, LabelProbe] = {}

    @property
    def any(self) -> bool:
        return bool(self._requests or self._scorings)

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
                self._scheduler.add(generation.sequence)

    def _probe_next(self, scoring: LabelScoring) -> None:
        probe = scoring.next_probe()
        if probe is not None:
            self._probes[probe.sequence] = probe
            self._scheduler.add(probe.sequence)

    def cancel(self, request_id: int) -> None:
        """Frees the request's KV memory at once, that is between two steps. Unknown ids have finished already."""
        scoring = self._scorings.pop(request_id, None)
        for probe in scoring.probes if scoring else ():
            del self._probes[probe.sequence]
            self._scheduler.remove(probe.sequence)
        request = self._requests.pop(request_id, None)
        for generation in request.generations if request else ():
            if self._generations.pop(generation.sequence, None) is not None:
                self._scheduler.remove(generation.sequence)

    def id_of(self, sequence: Sequence) -> int:
        probe = self._probes.get(sequence)
        return probe.scoring.id if probe is not None else self._generations[sequence][0].id

    def wanted(self, chunk: Chunk) -> tuple[int, ...]:
        """Which of the chunk's tokens have logits that somebody wants."""
        if probe := self._probes.get(chunk.sequence):
            return probe.offsets(chunk)
        return (chunk.tokens - 1,) if chunk.samples else ()

    def take(self, chunks: list[Chunk], wanted: list[tuple[int, ...]], logits: Logits) -> None:
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
        self._scheduler.remove(probe.sequence)
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
        self._scheduler.remove(generation.sequence)
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
