"""How much two texts share at their beginning."""

from __future__ import annotations

from typing import AnyStr


def common_prefix(one: AnyStr, other: AnyStr) -> int:
    """Length of the common prefix, by bisection over slices: comparing those is one memcmp each."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
