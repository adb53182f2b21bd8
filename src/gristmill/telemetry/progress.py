"""How a job is doing: rates over a sliding window, the reused share, and the time that is left."""

from __future__ import annotations

import itertools
import math
import statistics
from bisect import bisect_right
from collections import deque
from typing import NamedTuple

#: The stretches of equal length into which what has been seen is divided, to tell how much the pace varies.
_STRETCHES = 10
#: Student's t at 0.95, with nine degrees of freedom.
_T = 1.833
#: A stretch shorter than this (seconds) shows how answers bunch together, not how the pace varies.
_SHORTEST_STRETCH = 1.0


class Counts(NamedTuple):
    """What has been done so far; ``cached_tokens`` is None where the engine does not report it."""

    rows: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int | None = 0
    completion_tokens: int = 0


class Rates(NamedTuple):
    """None until there is something to measure.

    The last two are the ends of a 90 % interval: if what is left is like what was measured, nine times out of ten it
    takes no less and no more. The upper end stays None where the pace has varied too much to name one.
    """

    rows_per_second: float | None = None
    tokens_per_second: float | None = None
    reused_share: float | None = None
    eta_seconds: float | None = None
    eta_low_seconds: float | None = None
    eta_high_seconds: float | None = None


class Progress:
    """Feed it ``(time, counts)`` observations; ``rates`` looks back over ``window`` seconds.

    The time that is left is told by a longer look: over half the time since the first observation, where that is more.
    Rows differ in length, and the average of many is surer than that of the last minute's. How much the pace has varied
    meanwhile gives the band around it.
    """

    def __init__(self, total: int, window: float = 60.0) -> None:
        self.total = total
        self._window = window
        self._began: float | None = None
        self._observations: deque[tuple[float, Counts]] = deque()

    def observe(self, now: float, counts: Counts) -> None:
        """``now`` in seconds on any steady clock."""
        if self._began is None:
            self._began = now
        span = max(self._window, (now - self._began) / 2)
        if len(self._observations) > 1 and now - self._observations[-2][0] < span / 600:
            # Enough resolution; the last observation moves on instead of the list growing.
            self._observations.pop()
        self._observations.append((now, counts))
        while len(self._observations) > 2 and self._observations[1][0] < now - span:
            self._observations.popleft()

    def rates(self) -> Rates:
        if not self._observations:
            return Rates()
        end, last = self._observations[-1]
        start, first = self._since(end - self._window)
        share = None
        if last.cached_tokens is not None and last.prompt_tokens:
            share = last.cached_tokens / last.prompt_tokens
        seconds, done = end - start, last.rows - first.rows
        if seconds <= 0 or done <= 0:
            return Rates(reused_share=share)
        tokens = last.prompt_tokens + last.completion_tokens - first.prompt_tokens - first.completion_tokens
        earliest, then = self._observations[0]
        pace = (last.rows - then.rows) / (end - earliest)
        left = max(self.total - last.rows, 0)
        # The first row alone waits for the engine to load and for the shared prompt to be computed: it is no pace.
        eta = left / pace if last.rows - then.rows > 1 or not left else None
        return Rates(done / seconds, tokens / seconds, share, eta, *self._band(left))

    def _band(self, left: int) -> tuple[float | None, float | None]:
        """From the paces of equal stretches of what has been seen: the variance of their mean, and that of the mean of
        as many stretches as are to come (a prediction interval for the mean of normal values)."""
        times = [at for at, _ in self._observations]
        length = (times[-1] - times[0]) / _STRETCHES
        if length < _SHORTEST_STRETCH:
            return None, None
        rows = [self._rows_at(times, times[0] + i * length) for i in range(_STRETCHES + 1)]
        paces = [(after - before) / length for before, after in itertools.pairwise(rows)]
        mean, spread = statistics.mean(paces), statistics.stdev(paces)
        if mean <= 0 or not left:
            return None, None
        to_come = left / mean / length
        error = _T * spread * math.sqrt(1 / _STRETCHES + 1 / to_come)
        return left / (mean + error), left / (mean - error) if mean > error else None

    def _rows_at(self, times: list[float], at: float) -> float:
        """Between two observations, as if rows had come evenly."""
        after = min(max(bisect_right(times, at), 1), len(times) - 1)
        (before_at, before), (after_at, later) = self._observations[after - 1], self._observations[after]
        share = min(max((at - before_at) / max(after_at - before_at, 1e-9), 0.0), 1.0)
        return before.rows + share * (later.rows - before.rows)

    def _since(self, begin: float) -> tuple[float, Counts]:
        """The last observation that is not after ``begin``, or the first of all."""
        found = self._observations[0]
        for each in self._observations:
            if each[0] > begin:
                break
            found = each
        return found


_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def duration(seconds: float) -> str:
    """Two significant digits or so, in the largest unit that fits: "3.4 hours"."""
    for size, unit in _UNITS:
        if seconds >= size or size == 1:
            amount = seconds / size
            text = f"{amount:.0f}" if amount >= 10 else f"{amount:.1f}"
            return f"{text} {unit}" if text in ("1", "1.0") else f"{text} {unit}s"
    raise AssertionError("unreachable")
