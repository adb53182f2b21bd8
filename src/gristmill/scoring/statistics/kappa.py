"""Agreement of two yes-or-no answers about the same rows, beyond chance (Cohen 1960). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def kappa(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Of two masks, a row each: (p - c) / (1 - c), with p the share of rows on which they agree, and c the share on
    which they would by chance, each keeping its own share of yes. 1: always agreed; 0: as by chance. None where both
    say the same of every row, so that chance would agree as well."""
    yes, other_yes = float(one.mean()), float(other.mean())
    chance = yes * other_yes + (1 - yes) * (1 - other_yes)
    agreed = float((one == other).mean())
    return (agreed - chance) / (1 - chance) if chance < 1 else None
