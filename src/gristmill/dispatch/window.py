"""How many requests to keep in flight: a pure decision from what the last round showed.

Slow start, then additive increase and multiplicative decrease, as congestion control does it: the window doubles
while that pays, then creeps up, and shrinks when the engine pushes back or computes fewer tokens a second. Tokens, not
rows: rows may be ten times as long as those before, and the engine be as fast as ever.
"""

from __future__ import annotations

from typing import NamedTuple

#: A larger window paid if the rate grew by this factor.
_PAYS = 1.1
#: Half of a doubling is kept if the rate grew by this factor at least: what answers need on their way to and from the
#: engine, it is idle unless others wait there already.
_HELPS = 1.02
#: The engine is past its best if the rate fell below this share of the best seen.
_FALLEN = 0.8
_PUSHED_BACK = 0.7
#: Up to this share of a round's answers may be push-backs: one row that takes too long says nothing of the window.
_TOLERATED = 0.05


class Window(NamedTuple):
    """``limit`` requests in flight; ``best_rate`` in tokens a second was first reached at ``best_limit``."""

    limit: int
    doubling: bool = True
    best_rate: float = 0.0
    best_limit: int = 1


class Observation(NamedTuple):
    """One round: at least ``limit`` rows. ``tokens`` were computed for those ``completed``; ``full`` says whether the
    window was ever the limit."""

    seconds: float
    completed: int
    push_backs: int
    full: bool
    tokens: float


def decide(window: Window, seen: Observation, maximum: int) -> Window:
    """The window for the next round, from 1 to ``maximum``. Push-backs are refusals for load, and time-outs."""
    if seen.push_backs > _TOLERATED * (seen.completed + seen.push_backs):
        limit = max(1, int(window.limit * _PUSHED_BACK))
        return Window(limit, doubling=False, best_limit=limit)
    if not seen.full or seen.seconds <= 0:
        return window
    rate = seen.tokens / seen.seconds
    if rate >= window.best_rate * _PAYS:
        limit = window.limit * 2 if window.doubling else window.limit + _step(window)
        return Window(min(limit, maximum), window.doubling, rate, window.limit)
    if window.doubling:
        # The last doubling brought little but longer answers: take it back, or half of it.
        helped = rate >= window.best_rate * _HELPS
        limit = (window.best_limit + window.limit) // 2 if helped else window.best_limit
        return window._replace(limit=limit, doubling=False)
    if rate < window.best_rate * _FALLEN:
        # What was best may have been another kind of row: from here on, this is what is compared with.
        limit = max(1, int(window.limit * 0.9))
        return Window(limit, doubling=False, best_rate=rate, best_limit=limit)
    # As good as the best: feel upwards, but not far past the window that was enough.
    return window._replace(limit=min(window.limit + _step(window), window.best_limit * 3 // 2 + 1, maximum))


def _step(window: Window) -> int:
    """One, or a sixteenth of a large window: with one at a time it would take long to find what is missing."""
    return max(1, window.limit // 16)
