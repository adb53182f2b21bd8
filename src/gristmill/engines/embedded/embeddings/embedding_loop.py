"""The worker's loop body for a model that embeds: prepared requests in, one step of inputs at a time, frames out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.answer_frames import Embedded
from gristmill.engines.embedded.embeddings.embedding import EmbeddingTask
from gristmill.engines.embedded.embeddings.embedding_runner import EmbeddingRunner
from gristmill.engines.embedded.embeddings.embedding_step import WaitingInput, next_inputs
from gristmill.engines.embedded.preparation import Prepared
from gristmill.engines.embedded.scheduling.step_pace import StepPace
from gristmill.engines.embedded.worker.frames import Failed, FromWorker, KeepPrefixes, failed_by


class EmbeddingLoop:
    """Inputs of several requests share a step, and those of one may take several. An input's failure is that of its
    request."""

    def __init__(
        self, runner: EmbeddingRunner, step_tokens: int, max_rows: int, emit: Callable[[FromWorker], None]
    ) -> None:
        """At most ``step_tokens`` tokens, and ``max_rows`` inputs, a step; an input that is longer is one alone."""
        self._runner = runner
        self._max_rows = max_rows
        self._emit = emit
        self._pace = StepPace(step_tokens)
        self._tasks: dict[int, EmbeddingTask] = {}
        self._waiting: list[WaitingInput] = []

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    def enter(self, prepared: Prepared) -> None:
        """Take a request up, or pass on why there is none."""
        if isinstance(prepared, Failed):
            self._emit(prepared)
            return
        assert isinstance(prepared, EmbeddingTask)
        self._tasks[prepared.id] = prepared
        self._waiting += [WaitingInput(prepared, place) for place in range(len(prepared.inputs))]

    def cancel(self, request_id: int) -> None:
        """Unknown ids have finished already."""
        if self._tasks.pop(request_id, None) is not None:
            self._waiting = [each for each in self._waiting if each.task.id != request_id]

    def interrupt(self) -> None:
        """An interactive request is ready: it is first in the next step. One that is computed is soon over."""

    def keep_prefixes(self, wanted: KeepPrefixes) -> None:
        """A model that only embeds keeps nothing of what it reads."""

    def step(self) -> None:
        begin = time.monotonic()
        interactive = any(task.interactive for task in self._tasks.values())
        if interactive:
            self._pace.asked(begin)
        taken = next_inputs(self._waiting, self._pace.tokens(begin), self._max_rows, self._runner.padded)
        places = set(map(id, taken))
        self._waiting = [each for each in self._waiting if id(each) not in places]
        for each, vector in zip(taken, self._embed(taken), strict=True):
            # Another input of the same request may have failed just now.
            if each.task.id in self._tasks:
                self._guard(each.task.id, functools.partial(self._take, each, vector))
        self._pace.computed(sum(len(each.tokens) for each in taken), time.monotonic() - begin, interactive)

    def _embed(self, taken: list[WaitingInput]) -> list[NDArray[np.float32] | Exception]:
        """Together; where that fails, one by one, to see whose fault it is."""
        try:
            return list(self._runner.embed([each.tokens for each in taken]))
        except Exception as error:
            if len(taken) == 1:
                return [error]
            return [vector for each in taken for vector in self._embed([each])]

    def _take(self, each: WaitingInput, vector: NDArray[np.float32] | Exception) -> None:
        if isinstance(vector, Exception):
            raise vector
        each.task.note(each.place, vector)
        if each.task.done:
            del self._tasks[each.task.id]
            self._emit(Embedded(each.task.id, each.task.embeddings()))

    def _guard(self, request_id: int, change: Callable[[], None]) -> None:
        """Whatever fails for one request ends that one, and no other."""
        try:
            change()
        except Exception as error:
            self.cancel(request_id)
            self._emit(failed_by(request_id, error))
