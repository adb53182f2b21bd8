"""Numbers of float32 as Python's floats that are written with as few digits as tell them apart from other float32s."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Every float32 is told by nine significant digits, most by fewer.
_MOST_DIGITS = 9
_FEWEST_DIGITS = 6


def shortest_decimals(numbers: NDArray[np.float32]) -> list[float]:
    """Of finite numbers, in their order. Each converts back to its float32; to write 0.1 as float64 sees it would take
    17 digits."""
    exact = numbers.astype(np.float64)
    found = exact.copy()
    magnitude = np.abs(exact)
    exponent = np.floor(np.log10(magnitude, where=magnitude > 0, out=np.zeros_like(magnitude)))
    left = magnitude > 0
    for digits in range(_FEWEST_DIGITS, _MOST_DIGITS + 1):
        # A power of ten that float64 holds exactly, for all but numbers too small to matter.
        power = digits - 1 - exponent
        scale = 10.0 ** np.abs(power)
        rounded = np.where(power >= 0, np.rint(exact * scale) / scale, np.rint(exact / scale) * scale)
        fits = left & (rounded.astype(np.float32) == numbers)
        found[fits] = rounded[fits]
        left &= ~fits
    decimals: list[float] = found.tolist()
    return decimals
