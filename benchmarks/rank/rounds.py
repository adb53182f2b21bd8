"""What the tiers of ``gristmill rank --rounds`` promise, replayed over strengths that are known.

python benchmarks/rank/rounds.py [--replays 1000] [--only NAME]

Each replay draws strengths, pairs and answers with a seed of its own. Wrong is a replay in which any two rows are told
apart the wrong way round, or at all where they are equal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import binom, kendalltau

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import receipt

from gristmill.scoring.rank.pairing import pairs_of_rounds
from gristmill.scoring.statistics.bradley_terry import Pairs, fit_strengths
from gristmill.scoring.statistics.position_effect import without_position
from gristmill.scoring.statistics.tiers import tiers, told_apart

_ROWS, _CONFIDENCE = 60, 0.95
#: A count is within the binomial error where so few would be exceeded once in a hundred.
_SURE = 0.99
_SWISS_REPLAYS = 100

#: From a generator, the pairs and their true differences, the answers as first and as second.
Judge = Callable[[np.random.Generator, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Case(NamedTuple):
    """``spread``: the standard deviation of the strengths, in log-odds."""

    answers: str
    judge: Judge
    spread: float
    rounds: int
    swiss: bool = False


def coins(place: float) -> Judge:
    """The model itself: each answer is a coin's flip of its own."""

    def judge(draw: np.random.Generator, pairs: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        as_first, as_second = draw.random((2, len(true)))
        return (as_first < expit(true + place)).astype(float), (as_second < expit(true - place)).astype(float)

    return judge


def choices(place: float) -> Judge:
    """Sure of itself: both orders of a pair have the same error."""

    def judge(draw: np.random.Generator, pairs: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = true + draw.logistic(size=len(true))
        return (found + place > 0).astype(float), (found - place > 0).astype(float)

    return judge


def probabilities(error: float, place: float, places: float = 0.0, uneven: float = 0.0) -> Judge:
    """Log-odds with an ``error``, which differs from row to row by ``uneven``; the place adds another amount to each
    pair."""

    def judge(draw: np.random.Generator, pairs: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = error * np.exp(uneven * draw.normal(size=_ROWS))
        found = true + draw.normal(size=len(true)) * np.sqrt((own[pairs] ** 2).mean(axis=1))
        added = place + places * draw.normal(size=len(true))
        return expit(found + added), expit(found - added)

    return judge


def cases() -> Iterator[Case]:
    judges = {
        "coins, place +0.5": coins(0.5),
        "choices, the same error in both orders, place +1": choices(1),
        "probabilities, error 0.5, place +1": probabilities(0.5, 1),
        "probabilities, error 1, place +4, from pair to pair by 1": probabilities(1, 4, 1),
        "probabilities, error 1 and uneven, place +1 by 0.5": probabilities(1, 1, 0.5, 0.7),
    }
    for spread in (0.0, 1.0):
        for name, judge in judges.items():
            yield Case(name, judge, spread, 8)
    name = "probabilities, error 1, place +4, from pair to pair by 1"
    for rounds in (4, 16):
        for spread in (0.0, 1.0):
            yield Case(name, judges[name], spread, rounds)
    for name in ("coins, place +0.5", "probabilities, error 0.5, place +1"):
        yield Case(name, judges[name], 0.0, 8, swiss=True)


def swiss(rows: int, strength: np.ndarray, met: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Each with the nearest one, by the answers so far, that it has not met."""
    left, found = np.argsort(-strength).tolist(), []
    while left:
        one = left.pop(0)
        for place, other in enumerate(left):
            if (min(one, other), max(one, other)) not in met:
                found.append((min(one, other), max(one, other)))
                del left[place]
                break
    return found


def answered(case: Case, draw: np.random.Generator, strength: np.ndarray, seed: int) -> Pairs:
    by_round = pairs_of_rounds(_ROWS, 2 if case.swiss else case.rounds, seed)
    pairs = np.array([pair for each in by_round for pair in each])
    better = without_position(*case.judge(draw, pairs, strength[pairs[:, 0]] - strength[pairs[:, 1]]))
    while case.swiss and len(by_round) < case.rounds:
        so_far = fit_strengths(Pairs(pairs[:, 0], pairs[:, 1], better), _ROWS).strength
        by_round.append(swiss(_ROWS, so_far, {(int(one), int(other)) for one, other in pairs}))
        new = np.array(by_round[-1])
        found = without_position(*case.judge(draw, new, strength[new[:, 0]] - strength[new[:, 1]]))
        pairs, better = np.concatenate([pairs, new]), np.concatenate([better, found])
    return Pairs(pairs[:, 0], pairs[:, 1], better)


def measure(case: Case, replays: int) -> dict[str, Any]:
    wrong, share, parts, order = 0, [], [], []
    for seed in range(replays):
        draw = np.random.default_rng(seed)
        strength = case.spread * draw.normal(size=_ROWS)
        found = fit_strengths(answered(case, draw, strength, seed), _ROWS)
        better = told_apart(found, _CONFIDENCE)
        wrong += bool((better & (strength[:, None] <= strength[None, :])).any())
        share.append(better.sum() / (_ROWS * (_ROWS - 1) / 2))
        parts.append(int(tiers(better).max()))
        order.append(kendalltau(strength, found.strength).statistic if case.spread else np.nan)
    return {
        "answers": case.answers,
        "strengths_spread": case.spread,
        "rounds": case.rounds,
        "pairing": "by the answers so far (Swiss), after two random rounds" if case.swiss else "random",
        "replays": replays,
        "wrong": wrong,
        "allowed_within_binomial_error": int(binom.ppf(_SURE, replays, 1 - _CONFIDENCE)),
        "pairs_told_apart": round(float(np.mean(share)), 4),
        "tiers_mean": round(float(np.mean(parts)), 2),
        "kendall_tau_with_truth": round(float(np.mean(order)), 3) if case.spread else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=int, default=1_000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    measured: list[dict[str, Any]] = []
    for case in cases():
        if options.only not in case.answers:
            continue
        measured.append(measure(case, min(options.replays, _SWISS_REPLAYS) if case.swiss else options.replays))
        print(measured[-1], flush=True)
        if not options.only:
            content = {"rows": _ROWS, "confidence": _CONFIDENCE, "cases": measured}
            receipt.write("rank-rounds", content, ("numpy", "scipy"))


if __name__ == "__main__":
    main()
