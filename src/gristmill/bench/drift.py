"""How far a strategy's answers are from the same rows answered alone. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from gristmill.bench.session import RowResult


class Drift(msgspec.Struct, frozen=True):
    """Over the rows that both answered. ``score_difference``: the mean distance of the scores, over ``scored`` rows
    where both have a number. ``kendall_tau``: how alike the two orders of these rows are, 1 is the same, 0 is chance;
    None where all scores are alike. ``changed``: the share of rows whose score, or else text, is another."""

    rows: int
    scored: int
    score_difference: float | None
    kendall_tau: float | None
    changed: float


def drift(answers: Sequence[RowResult], alone: Sequence[RowResult]) -> Drift | None:
    """None where no row was answered both times."""
    reference = {result.row: result for result in alone if not result.error}
    pairs = [(each, reference[each.row]) for each in answers if not each.error and each.row in reference]
    if not pairs:
        return None
    scores = [(a.score, b.score) for a, b in pairs if a.score is not None and b.score is not None]
    tau = kendall_tau([a for a, _ in scores], [b for _, b in scores])
    return Drift(
        len(pairs),
        len(scores),
        round(sum(abs(a - b) for a, b in scores) / len(scores), 4) if scores else None,
        None if tau is None else round(tau, 4),
        round(sum(_answer(a) != _answer(b) for a, b in pairs) / len(pairs), 4),
    )


def _answer(result: RowResult) -> str:
    """What the row says: its number where it has one, as "7" and '{"score":7}' say the same."""
    return repr(number) if (number := number_of(result)) is not None else result.text.strip()


def number_of(result: RowResult) -> float | None:
    """The answer's own number: of a row of label scores that of its most probable label, not their mean."""
    try:
        return float(result.text)
    except ValueError:
        return result.score


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Tau-b, which allows for ties (M. G. Kendall, 1945): (concordant - discordant) / sqrt((n0 - n1)(n0 - n2)), n0 the
    number of pairs, n1 and n2 those tied in either. None where it is not defined. Quadratic in the rows."""
    concordance = ties_first = ties_second = pairs = 0
    for i in range(len(first)):
        for j in range(i):
            a, b = _sign(first[i] - first[j]), _sign(second[i] - second[j])
            pairs += 1
            concordance += a * b
            ties_first += a == 0
            ties_second += b == 0
    below = (pairs - ties_first) * (pairs - ties_second)
    return concordance / math.sqrt(below) if below else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
