"""The worker's engine loop body: prepared requests in, one step of the model at a time, frames out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from gristmill.engines.embedded.model_runner import ModelRunner, Span, Vocabulary
from gristmill.engines.embedded.prefix_files.kv_transfer import KvTransfer
from gristmill.engines.embedded.prefix_files.prefix_folder import prefixes_folder
from gristmill.engines.embedded.prefix_files.prefix_keeper import PrefixKeeper
from gristmill.engines.embedded.prefix_files.prefix_store import PrefixStore
from gristmill.engines.embedded.preparation import Prepared
from gristmill.engines.embedded.scheduling.out_of_room import OutOfRoom
from gristmill.engines.embedded.scheduling.requests_in_flight import RequestsInFlight
from gristmill.engines.embedded.scheduling.scheduler import Scheduler
from gristmill.engines.embedded.scheduling.step_abort import StepAbort, StepAborted
from gristmill.engines.embedded.scheduling.step_pace import StepPace
from gristmill.engines.embedded.scheduling.step_plan import StepLimits, StepPlan
from gristmill.engines.embedded.worker.frames import FromWorker, KeepPrefixes, Notice, PrefixRead


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
        pace: StepPace | None = None,
    ) -> None:
        """``ends``: token ids that end an answer. ``emit`` is called from ``enter`` and ``step``, and by a thread that
        writes prefixes to the disk. ``pace``: that of another loop on the same processor."""
        self._model = model
        self._emit = emit
        self.pace = pace or StepPace(step_tokens)
        #: Read by other threads.
        self._running: RunningStep | None = None
        self.scheduler = Scheduler(StepLimits(step_tokens, max_rows), model.new_memory())
        self._requests = RequestsInFlight(self.scheduler, vocabulary, ends, max_rows, emit)
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
    def interactive(self) -> bool:
        """Whether somebody is waiting for what it computes."""
        return self.scheduler.interactive

    @property
    def busy(self) -> bool:
        """Whether there is something to do for ``step``."""
        return self._requests.any or (self._keeper is not None and self._keeper.busy)

    def enter(self, prepared: Prepared) -> None:
        """Take a request up, or pass on why there is none."""
        self._requests.enter(prepared)

    def cancel(self, request_id: int) -> None:
        """Frees the request's KV memory at once, that is between two steps. Unknown ids have finished already."""
        self._requests.cancel(request_id)

    def interrupt(self) -> None:
        """An interactive request is ready for ``enter``: abort the step that is computed where it would take too long.
        Safe from any thread. (One that comes just before a step begins waits for it.)"""
        running = self._running
        if running is None or not running.abortable:
            return
        if self.pace.worth_aborting(running.tokens, time.monotonic() - running.begun):
            running.abort.ask()

    def step(self, most_tokens: int | None = None) -> None:
        """Compute one step, of at most ``most_tokens`` tokens, and emit what it completes. Where it is aborted nothing
        has happened, except that there is room already for what it was to compute. Raises OutOfRoom where there is none
        for a single token."""
        if self.scheduler.sequences:
            self._compute_step(most_tokens)
        if self._keeper is not None:
            self._keeper.work(idle=not self.scheduler.sequences)

    def _compute_step(self, most_tokens: int | None) -> None:
        begin = time.monotonic()
        interactive = self.scheduler.interactive
        if interactive:
            self.pace.asked(begin)
        # Alone it need not be spared.
        if most_tokens is None and self.scheduler.sequences > 1:
            most_tokens = self.pace.tokens(begin)
        step = self.scheduler.plan(most_tokens)
        self._model.make_moves(step.moves)
        if not step.chunks and self._keeper is not None and self._keeper.give_up():
            # There was no memory for anything else. Now there is.
            return
        if self._keeper is not None and not self._read_prefixes(step, self._keeper):
            self.scheduler.abort(step)
            return
        begin = time.monotonic()
        wanted = [self._requests.wanted(chunk) for chunk in step.chunks]
        tokens = sum(chunk.tokens for chunk in step.chunks)
        abortable = not interactive and self.scheduler.abortable(step)
        self._running = running = RunningStep(StepAbort(), begin, tokens, abortable)
        try:
            logits = self._model.forward(self._spans(step, wanted), running.abort)
        except StepAborted:
            self.pace.aborted()
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
        self._requests.take(step.chunks, wanted, logits)
        self.pace.computed(tokens, time.monotonic() - begin, interactive)

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
            keeper.note(self._requests.id_of(begun.sequence), begun.sequence)
        return complete

    def _spans(self, step: StepPlan, wanted: list[tuple[int, ...]]) -> list[Span[Any]]:
        place = self.scheduler.memory.place
        return [
            Span(sequence.tokens[start : start + tokens], start, place(sequence), offsets)
            for (sequence, start, tokens, _), offsets in zip(step.chunks, wanted, strict=True)
        ]


def _told(step: StepPlan, error: OutOfRoom, limits: StepLimits) -> str:
    tokens = sum(chunk.tokens for chunk in step.chunks)
    return (
        f"There was no room for a step of {tokens} tokens in {len(step.chunks)} rows: {error}. They are computed "
        f"again, and from now on in steps of at most {limits.step_tokens} tokens in {limits.max_rows} rows."
    )
