"""Bars drawn on the server, in SVG's own units. Pure. Every picture stands beside a table of the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 640.0, 180.0
#: Room below the bars for the names.
_FOOT = 22.0
#: How wide a letter is, about; and how many bars one name may stand for where names are long. The table has them all.
_LETTER, _MOST_BARS = 7.0, 4


class Bar(NamedTuple):
    """``text`` says all of it; ``name`` stands below, empty where there is no room."""

    x: float
    y: float
    width: float
    height: float
    middle: float
    name: str
    text: str


class Bars(NamedTuple):
    """``alt`` is what the picture shows, for those who do not see it."""

    alt: str
    width: float
    height: float
    floor: float
    bars: list[Bar]


def bars(alt: str, named: Sequence[tuple[str, float, str]]) -> Bars:
    """``named``: name, size (0 or more), and what to say of each bar. The tallest bar fills the height."""
    most = max((size for _, size, _ in named), default=0) or 1
    step = WIDTH / max(len(named), 1)
    gap = min(step * 0.2, 6.0)
    longest = max((len(name) for name, _, _ in named), default=0)
    every = min(math.ceil((longest + 1) * _LETTER / step), _MOST_BARS)
    room = max(int(step * every / _LETTER), 1)
    floor = HEIGHT - _FOOT
    found = []
    for place, (name, size, text) in enumerate(named):
        height = round((floor - 4) * max(size, 0) / most, 1)
        shown = name if place % every == 0 else ""
        found.append(
            Bar(
                round(place * step + gap / 2, 1), round(floor - height, 1), round(step - gap, 1), height,
                round((place + 0.5) * step, 1), shown if len(shown) <= room else shown[: max(room - 1, 1)] + "…", text,
            )
        )  # fmt: skip
    return Bars(alt, WIDTH, HEIGHT, floor, found)
