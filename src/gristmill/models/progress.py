"""How a long pull tells what it is doing, without knowing whether a terminal listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Report(NamedTuple):
    """``say`` takes a sentence for the user. ``advance`` takes bytes done and bytes in all, any number of
    times."""

    say: Callable[[str], None] = lambda sentence: None
    advance: Callable[[int, int], None] = lambda done, total: None


SILENT = Report()


def human_size(size: int) -> str:
    """Bytes in the decimal units downloads are given in: 98362432 is "98 MB"."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
