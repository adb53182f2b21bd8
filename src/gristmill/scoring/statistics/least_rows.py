"""How many rows must be judged before anything can be promised without an assumption. Pure."""

from __future__ import annotations


def least_share(left: int, confidence: float) -> float:
    """The share of the unjudged rows that every method without an assumption has to judge before it can say with this
    confidence that at most ``left`` of the rows looked for are still unjudged: 1 - (1 - confidence)^(1 / (left + 1)).

    With ``left`` + 1 of them hidden at random among the unjudged, a share s finds none with probability at least
    (1 - s)^(left + 1), and then everything looks as it does where there is none.
    (docs/explanation/statistics.md, "The least that must be judged")
    """
    return float(1 - (1 - confidence) ** (1 / (left + 1)))
