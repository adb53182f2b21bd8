"""Invent candidates whose right score follows from the rubric: the sample that `gristmill score` is shown with.

python examples/candidates/make_sample.py [ROWS] > examples/candidates/sample.csv
"""

from __future__ import annotations

import csv
import random
import sys

# Each phrase with the points that the rubric gives for it. A first element of None says nothing.
BULK = ("a flour mill", "a feed mill", "a brewery", "a sugar factory", "a cement plant")
OTHER = ("a packaging plant", "a car factory", "a printing works")
ELECTRICAL = (
    ("programs and commissions controllers", 2), ("is a trained electrician", 2), ("reads circuit diagrams", 1),
    ("replaces sensors and drives", 1), (None, 0),
)  # fmt: skip
MECHANICAL = (
    ("is a trained millwright", 2), ("aligns shafts and changes bearings", 2), ("tightens belts and chains", 1),
    ("greases machines", 1), (None, 0),
)  # fmt: skip
SAFETY = (
    ("works with lockout every day", 2), ("teaches dust explosion protection", 2), ("has a first aid certificate", 1),
    (None, 0),
)  # fmt: skip
SHIFTS = (("accepts shifts and on-call weeks", True), ("refuses shifts", False))


def experience(years: int, bulk: bool) -> int:
    if years >= 5:
        return 3 if bulk else 2
    if years >= 2 and bulk:
        return 2
    return 1 if years >= 1 else 0


def candidate(draw: random.Random) -> tuple[str, int]:
    """A summary, and its points."""
    years, stayed = draw.choice((0, 1, 3, 4, 6, 9, 14)), draw.choice((1, 2, 5))
    bulk = draw.random() < 0.5
    place = draw.choice(BULK if bulk else OTHER)
    chosen = [draw.choice(phrases) for phrases in (ELECTRICAL, MECHANICAL, SAFETY)]
    shifts, accepts = draw.choice(SHIFTS)
    bypassed = draw.random() < 0.1
    points = experience(years, bulk) + sum(point for _, point in chosen)
    points += int(accepts and stayed >= 2) - 2 * bypassed
    work = f"{years} years of machine maintenance in {place}" if years else "an office clerk without time in a plant"
    parts = [work, *(phrase for phrase, _ in chosen if phrase), shifts]
    parts.append(f"{stayed} {'year' if stayed == 1 else 'years'} in the last position")
    if bypassed:
        parts.append("bridged a door switch to keep a line running")
    middle = parts[1:]
    draw.shuffle(middle)
    return ", ".join([parts[0][0].upper() + parts[0][1:], *middle]) + ".", min(max(points, 0), 10)


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    draw = random.Random(7)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["id", "summary", "points"])
    for row in range(1, rows + 1):
        writer.writerow([f"candidate-{row:03}", *candidate(draw)])


if __name__ == "__main__":
    main()
