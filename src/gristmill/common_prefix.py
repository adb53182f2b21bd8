"""How much two texts share at their beginning."""

from __future__ import annotations

from typing import AnyStr

_FIRST_STEP = 64


def common_prefix(one: AnyStr, other: AnyStr, guess: int = 0) -> int:
    """Length of the common prefix, by bisection over slices: comparing those is one memcmp each.

    ``guess``: what neighbours in a sorted list shared, probably about as much; it only saves time."""
    low, high = 0, min(len(one), len(other))
    if 0 < guess <= high:
        if one[:guess] == other[:guess]:
            low, high = _gallop(one, other, guess, high)
        else:
            high = guess - 1
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _gallop(one: AnyStr, other: AnyStr, low: int, high: int) -> tuple[int, int]:
    """Bounds of the common prefix, in steps that double."""
    step = _FIRST_STEP
    while low + step <= high:
        if one[low : low + step] != other[low : low + step]:
            return low, low + step - 1
        low, step = low + step, 2 * step
    return low, high
