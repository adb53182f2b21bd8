"""Watching an engine whose capacity is not known, and setting the window round by round."""

from __future__ import annotations

import time
from collections.abc import Callable

from gristmill.dispatch.window import Observation, Window, decide

_FIRST_LIMIT = 4
#: A round is at least this long (seconds), or one slow answer would decide for all.
_ROUND_SECONDS = 0.5
#: While the window doubles, what is looked for is large, and every round costs what the engine could have done.
_DOUBLING_ROUND_SECONDS = 0.2


class Tuner:
    """``note`` every answer; ``window`` is what to keep in flight now."""

    def __init__(self, maximum: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.window = Window(min(_FIRST_LIMIT, maximum))
        self._maximum = maximum
        self._clock = clock
        self._start_round()

    def note(self, pushed_back: bool, full: bool, tokens: float = 0.0) -> None:
        """An answer that took ``tokens`` to compute, or a refusal for load; ``full``: the window was the limit then."""
        self._push_backs += pushed_back
        self._completed += not pushed_back
        self._tokens += tokens
        self._full |= full
        seconds = self._clock() - self._started
        # Requests that were refused together count once: the rest of the round is still the old window's.
        shortest = _DOUBLING_ROUND_SECONDS if self.window.doubling else _ROUND_SECONDS
        if self._completed + self._push_backs < 2 * self.window.limit or seconds < shortest:
            return
        seen = Observation(seconds, self._completed, self._push_backs, self._full, self._tokens)
        self.window = decide(self.window, seen, self._maximum)
        self._start_round()

    def _start_round(self) -> None:
        self._started = self._clock()
        self._completed = self._push_backs = 0
        self._tokens = 0.0
        self._full = False
