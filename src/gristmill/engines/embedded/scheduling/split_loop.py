"""Label scores and everything else, computed in turns on two KV caches."""

from __future__ import annotations

from gristmill.engines.embedded.label_scoring import LabelScoring
from gristmill.engines.embedded.preparation import Prepared
from gristmill.engines.embedded.scheduling.engine_loop import EngineLoop
from gristmill.engines.embedded.scheduling.scheduler import TOKENS_BESIDE
from gristmill.engines.embedded.worker.frames import KeepPrefixes


class SplitLoop:
    """``scoring`` computes label scores of texts alone, one row at a time, so that nothing beside it moves their last
    bits; ``writing`` computes the rest. Where somebody waits for one of them, a step of the other is as small as what a
    batch computes beside interactive requests."""

    def __init__(self, writing: EngineLoop, scoring: EngineLoop) -> None:
        self._writing = writing
        self._scoring = scoring
        self._last = scoring

    @property
    def busy(self) -> bool:
        return self._writing.busy or self._scoring.busy

    def enter(self, prepared: Prepared) -> None:
        # Pictures are not text tokens, with which calls could be filled up.
        scores = isinstance(prepared, LabelScoring) and not prepared.sees
        (self._scoring if scores else self._writing).enter(prepared)

    def cancel(self, request_id: int) -> None:
        self._writing.cancel(request_id)
        self._scoring.cancel(request_id)

    def interrupt(self) -> None:
        self._writing.interrupt()
        self._scoring.interrupt()

    def keep_prefixes(self, wanted: KeepPrefixes) -> None:
        self._writing.keep_prefixes(wanted)

    def step(self) -> None:
        mine, other = self._scoring, self._writing
        if self._last is self._scoring:
            mine, other = other, mine
        if not mine.busy:
            mine, other = other, mine
        self._last = mine
        beside = other.interactive and not mine.interactive
        mine.step(TOKENS_BESIDE if beside else None)
