"""How many rows to compute at a time, and how many tokens in a step, from how long steps take on this machine. Pure.

Rows that decode together read the model once for all of them, so more of them are faster, up to where computing is what
takes the time. But where every token's attention walks the cells of all rows, as in llama.cpp's unified cache, more of
them are slower again. Where the best lies differs by model and machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

import msgspec

#: The rows that are reckoned with, in tokens: what they share, what each has of its own, and its answer.
SHARED_TOKENS, OWN_TOKENS, ANSWER_TOKENS = 1700, 45, 16
_ROWS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
_STEP_TOKENS = (256, 512, 1024, 2048)
#: Fewer rows, or a smaller step, are better where they are no slower than so: others wait less for the end of a step.
_AS_GOOD = 1.02


class Wave(msgspec.Struct, frozen=True):
    rows: int
    step_tokens: int


class StepTime(msgspec.Struct, frozen=True):
    """A step of ``tokens`` tokens in ``rows`` sequences, with the logits of one token of each, took ``seconds``. There
    were ``cells`` in the KV cache at its end."""

    tokens: int
    rows: int
    cells: int
    seconds: float


class _Costs(NamedTuple):
    """Seconds: of a step of so many tokens without attention, decoding and in prefill; of a token's attention to a
    cell."""

    decode: Callable[[float], float]
    prefill: Callable[[float], float]
    cell: float


def choose_wave(times: list[StepTime], cells: int, cells_a_token: int) -> Wave:
    """``times`` has at least one step each of rows that decode and of prefill; ``cells``: all that the KV cache has;
    ``cells_a_token``: those whose attention takes as long as the rest of a token, where that has not been measured."""
    costs = _costs(times, cells_a_token)
    rows = [each for each in _ROWS if each * (OWN_TOKENS + ANSWER_TOKENS) <= cells // 2] or _ROWS[:1]
    found = {Wave(many, step): _seconds_a_row(costs, many, step) for many in rows for step in _STEP_TOKENS}
    fastest = min(found.values())
    return min(
        (wave for wave, seconds in found.items() if seconds <= _AS_GOOD * fastest),
        key=lambda wave: (wave.rows, wave.step_tokens),
    )


def _seconds_a_row(costs: _Costs, rows: int, step_tokens: int) -> float:
    """Of a wave: all of its rows in prefill, then decoding."""
    own = rows * OWN_TOKENS
    steps = -(-own // step_tokens)
    walked = SHARED_TOKENS + own
    seconds = steps * costs.prefill(own / steps) + own * walked * costs.cell
    walked += rows * ANSWER_TOKENS // 2
    seconds += (ANSWER_TOKENS - 1) * (costs.decode(rows) + rows * walked * costs.cell)
    return seconds / rows


def _costs(times: list[StepTime], cells_a_token: int) -> _Costs:
    decoding = sorted((each for each in times if each.tokens == each.rows), key=lambda each: each.tokens)
    prefill = sorted((each for each in times if each.tokens > each.rows), key=lambda each: each.tokens)
    # What two steps that are alike but for the cells differ by.
    found = [
        (more.seconds - fewer.seconds) / (more.tokens * (more.cells - fewer.cells))
        for more in times
        for fewer in times
        if (more.tokens, more.rows) == (fewer.tokens, fewer.rows) and more.cells > fewer.cells
    ]
    cell = statistics.median(found) if found else prefill[-1].seconds / prefill[-1].tokens / cells_a_token
    cell = max(cell, 0.0)
    return _Costs(_without_attention(decoding, cell), _without_attention(prefill, cell), cell)


def _without_attention(times: list[StepTime], cell: float) -> Callable[[float], float]:
    """Seconds by tokens, on straight lines between what was measured. No longer for fewer tokens: that is noise."""
    points: list[tuple[float, float]] = []
    for each in times:
        seconds = max(each.seconds - each.tokens * each.cells * cell, 0.0)
        if points and points[-1][0] == each.tokens:
            seconds = min(seconds, points.pop()[1])
        points.append((each.tokens, max(seconds, points[-1][1] if points else 0.0)))

    def seconds_of(tokens: float) -> float:
        (before, least), *others = points
        if tokens <= before:
            return least
        for after, more in others:
            if tokens <= after:
                return least + (more - least) * (tokens - before) / (after - before)
            before, least = after, more
        return least * tokens / before

    return seconds_of
