"""How a job is doing: rates over a sliding window, the reused share, and the time that is left."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Counts(NamedTuple):
    """What has been done so far; ``cached_tokens`` is None where the engine does not report it."""

    rows: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int | None = 0
    completion_tokens: int = 0


class Rates(NamedTuple):
    """None until there is something to measure."""

    rows_per_second: float | None
    tokens_per_second: float | None
    reused_share: float | None
    eta_seconds: float | None


class Progress:
    """Feed it ``(time, counts)`` observations; ``rates`` looks back over ``window`` seconds.

    The time that is left is told by a longer look: over half the time since the first observation, where that is more.
    Rows differ in length, and the average of many is surer than that of the last minute's.
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
            return Rates(None, None, None, None)
        end, last = self._observations[-1]
        start, first = self._since(end - self._window)
        share = None
        if last.cached_tokens is not None and last.prompt_tokens:
            share = last.cached_tokens / last.prompt_tokens
        seconds, done = end - start, last.rows - first.rows
        if seconds <= 0 or done <= 0:
            return Rates(None, None, share, None)
        tokens = last.prompt_tokens + last.completion_tokens - first.prompt_tokens - first.completion_tokens
        earliest, then = self._observations[0]
        pace = (last.rows - then.rows) / (end - earliest)
        return Rates(done / seconds, tokens / seconds, share, max(self.total - last.rows, 0) / pace)

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
