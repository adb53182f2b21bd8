"""What came of comparing rows in rounds, in plain sentences. Pure."""

from __future__ import annotations

import math

from gristmill.scoring.rank.compared import Compared

#: Of pairs of which the two orders name different rows better: from here on the places decide more than the rows.
_MANY_TURNED = 0.5
#: Correlations that are nearer than this are not told apart in words.
_NEAR = 0.05


def compared_sentences(found: Compared, judge: str) -> list[str]:
    told = [
        f"The list was compared in {found.rounds:,} {_plural(found.rounds, 'round')}: {found.pairs:,} pairs, drawn at "
        f"random, each in both orders. {_tiers(found)}"
    ]
    if found.position is not None:
        told.append(_position(found))
    if found.likeness is not None:
        told.append(
            f"The order by comparisons and the order by scores correlate by {found.likeness:.2f} (1 is the same order, "
            "0 chance)."
        )
    if found.truth is not None and found.truth.scores is not None and found.truth.strengths is not None:
        told.append(_truth(found))
    left = sum(tier is None for tier in found.tier)
    if found.answered < found.pairs:
        said = f"{found.pairs - found.answered:,} pairs were not answered in both orders, and count for nothing"
        told.append(f"{said}: {found.error}" if found.error else f"{said}.")
    if left:
        told.append(f"{left:,} rows have been compared with no other: they stand behind the tiers, by their scores.")
    told.append(
        "What the certificate says is about which rows are in the list, and not about their order. The tiers are about "
        f"what {judge} would say of other pairs of these rows, and not about who is right."
    )
    return told


def not_compared(rows: int, most: int, certified: bool) -> str:
    if not certified:
        return "The list was not compared in rounds, as it is not certified yet."
    if rows > most:
        return (
            f"The {rows:,} rows of the list were not compared: rounds are for {most:,} at most. Where the cut leaves "
            "fewer, they are."
        )
    return "There was nothing to compare: the list has fewer than two rows."


def _tiers(found: Compared) -> str:
    if not found.tiers:
        return "No pair was answered in both orders, so that the list stands in the order of its scores."
    if found.tiers == 1:
        return "No two rows can be told apart by that: they are all in one tier. More rounds tell more."
    in_first = sum(tier == 1 for tier in found.tier)
    return (
        f"It falls into {found.tiers:,} tiers, {in_first:,} {_plural(in_first, 'row')} in the first. No two rows of a "
        "tier can be told apart; each row of a later tier is worse than some row of the tier before. All of that holds "
        f"together in about {found.confidence * 100:.3g} % of such rankings. The strongest row would be preferred to "
        f"the weakest in {_apart(found):.0%} of comparisons (50% is a coin's flip)."
    )


def _apart(found: Compared) -> float:
    strengths = [each for each in found.strength if each is not None]
    return 1 / (1 + math.exp(min(strengths) - max(strengths)))


def _position(found: Compared) -> str:
    assert found.position is not None
    first, turned = found.position.first, found.position.turned
    said = (
        f"The judge gives the row that is named first {first:.0%} of its preference on average (50% were fair), and in "
        f"{turned:.0%} of the pairs it turns its choice when the two are named the other way round."
    )
    if turned >= _MANY_TURNED:
        return (
            f"{said} That is hardly a judgement of the rows: the place, or chance, decides more than they do. Both "
            "orders are asked, so that the place cancels, but a better judge is needed to trust the order."
        )
    return f"{said} Both orders are asked, so that this cancels."


def _truth(found: Compared) -> str:
    truth = found.truth
    assert truth is not None and truth.scores is not None and truth.strengths is not None
    gain = truth.strengths - truth.scores
    verdict = "no better and no worse than" if abs(gain) < _NEAR else "better than" if gain > 0 else "worse than"
    chance = ", which may be chance with so few rows" if _NEAR <= abs(gain) < 2 * _spread(found) else ""
    return (
        f"Of the {truth.rows:,} compared rows that have a right score, the order by comparisons correlates with it by "
        f"{truth.strengths:.2f}, that of the scores by {truth.scores:.2f}: comparing did {verdict} scoring{chance}."
    )


def _spread(found: Compared) -> float:
    """The standard error of the difference of two correlations with the same thing, where both are near 0: each varies
    by 1 / (n - 1), and together by r / (n - 1) where the two correlate by r."""
    assert found.truth is not None
    return math.sqrt(2 * (1 - (found.likeness or 0.0)) / max(found.truth.rows - 1, 1))


def _plural(number: int, word: str) -> str:
    return word if number == 1 else f"{word}s"
