"""Who is compared with whom in each round. Pure.

Every round pairs at random, by the seed and the round's number alone. To pair those that are close by the answers so
far (as a Swiss tournament does) makes the best look better and the worst look worse than they are: what is paired
depends on what is to be estimated, and intervals no longer hold (docs/explanation/statistics.md, "Rounds of
comparisons").
"""

from __future__ import annotations

import numpy as np

Pair = tuple[int, int]

#: Beside the course's draws, which have the step's number in this place.
_STREAM = 2**32


def pairs_of_rounds(items: int, rounds: int, seed: int) -> list[list[Pair]]:
    """Items from 0. Each is in one pair of a round at most, and nobody meets anybody twice. One sits out where their
    number is odd, and rarely where everybody left to meet is taken. The first rounds are the same, however many
    follow."""
    met: set[Pair] = set()
    times = np.zeros(items, int)
    found = []
    for number in range(rounds):
        order = np.argsort(np.random.PCG64([seed, _STREAM, number]).random_raw(items))
        if items % 2:
            # Whoever had most comparisons sits out.
            last = order[np.argmax(times[order])]
            order = np.append(order[order != last], last)
        pairs = _apart([(int(one), int(other)) for one, other in zip(order[::2], order[1::2], strict=False)], met)
        met.update(pairs)
        times[np.array(pairs, int).ravel()] += 1
        found.append(pairs)
    return found


def _apart(pairs: list[Pair], met: set[Pair]) -> list[Pair]:
    """The pairs, where they have met exchanged with others; sorted."""
    pairs = [_sorted(*pair) for pair in pairs]
    for place, (one, other) in enumerate(pairs):
        if (one, other) not in met:
            continue
        for step in range(1, len(pairs)):
            mate = (place + step) % len(pairs)
            for first, second in (pairs[mate], pairs[mate][::-1]):
                new = _sorted(one, first), _sorted(other, second)
                if met.isdisjoint(new):
                    break
            else:
                continue
            pairs[place], pairs[mate] = new
            break
    return sorted(pair for pair in pairs if pair not in met)


def _sorted(one: int, other: int) -> Pair:
    return (one, other) if one < other else (other, one)
