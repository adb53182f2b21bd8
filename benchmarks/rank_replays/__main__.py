"""What `gristmill rank` promises, replayed over scores that are known: how often it is broken, and what it costs.

python benchmarks/rank_replays                1,000 replays of every case, half an hour of one core
python benchmarks/rank_replays --only tied    of the cases that have this in their name

Each replay draws anew, with a seed of its own; of made tables the scores are drawn anew, too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import packaged_texts
import receipt
import tables
from replays import Table, replay, summary
from tables import heavy_tailed, hidden, normal, tied

from gristmill.scoring.rank.goal import Assumption, Goal

_BIG, _ROWS = 170_000, 20_000
#: One more than may be missed of 100 at a recall of 0.95.
_HIDDEN = 6


class Case(NamedTuple):
    """``options`` of the goal; a cut is given by the ``share`` of the rows that are above it, unless it is one."""

    name: str
    made: Callable[[int], Table]
    options: dict[str, Any]
    share: float | None = None


def cases() -> Iterator[Case]:
    top, thinning = {"top": 100}, {"top": 100, "assume": Assumption.THINNING}
    both = {"recall": 0.9, "precision": 0.9}
    yield Case("normal, rank correlation 0.8, 170,000 rows", normal(_BIG, 0.8), thinning)
    found = f"{_HIDDEN} of the best hidden at the proxy's bottom"
    yield Case(found, hidden(_ROWS, _HIDDEN), top)
    yield Case(found, hidden(_ROWS, _HIDDEN), thinning)
    reviews = tables.sentences()
    yield Case("sentences of reviews, those labelled positive", lambda seed: reviews, both | {"cut": 1.0})
    concreteness = tables.words("concreteness_ratings", "Brysbaert")
    yield Case("words, concreteness", lambda seed: concreteness, top)
    yield Case("normal, rank correlation 0.8, 170,000 rows", normal(_BIG, 0.8), top)
    for name, of in {
        "random proxy": normal(_ROWS, 0),
        "proxy turned round, rank correlation -0.8": normal(_ROWS, -0.8),
        "normal, rank correlation 0.95": normal(_ROWS, 0.95),
        "normal, rank correlation 0.5": normal(_ROWS, 0.5),
        "heavy tails": heavy_tailed(_ROWS),
        "tied whole numbers": tied(_ROWS),
    }.items():
        yield Case(name, of, top)
        yield Case(name, of, thinning)
    for share in (0.2, 0.02):
        for likeness in (0.95, 0.8):
            name = f"normal, rank correlation {likeness}, {share:.0%} above the cut"
            yield Case(name, normal(_ROWS, likeness), both, share)
            yield Case(name, normal(_ROWS, likeness), {"recall": 0.9}, share)
    yield Case("random proxy, 20% above the cut", normal(_ROWS, 0), both, 0.2)
    yield Case("normal, rank correlation 0.95, top 1,000", normal(_ROWS, 0.95), {"top": 1_000})
    yield Case("normal, rank correlation 0.95, top 10", normal(_ROWS, 0.95), thinning | {"top": 10})
    haptic = tables.words("sensorimotor_norms", "Haptic")
    yield Case("words, concreteness", lambda seed: concreteness, thinning)
    yield Case("words, concreteness, 20% above the cut", lambda seed: concreteness, both, 0.2)
    yield Case("words, felt by touch", lambda seed: haptic, top)
    yield Case("words, felt by touch, 20% above the cut", lambda seed: haptic, both, 0.2)


def measure(case: Case, count: int) -> dict[str, Any]:
    first = case.made(0)
    options = dict(case.options)
    if case.share is not None:
        options["cut"] = float(np.quantile(first.score, 1 - case.share))
    goal = Goal(rows=len(first.score), **options)
    start = time.monotonic()
    found = summary(goal, (replay(goal._replace(seed=seed), case.made(seed)) for seed in range(count)))
    return {"table": case.name, **found, "seconds": round(time.monotonic() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=int, default=1_000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    measured: list[dict[str, Any]] = []
    for case in cases():
        if options.only not in case.name:
            continue
        measured.append(measure(case, options.replays))
        print(measured[-1], flush=True)
        if not options.only:
            content = {"data": packaged_texts.LICENCES, "cases": measured}
            receipt.write("rank-replays", content, ("numpy", "scipy", "scikit-learn"))


if __name__ == "__main__":
    main()
