"""Whether calibrated scores, intervals and statements keep what is promised of them, on tables whose truths are known.

python benchmarks/calibration replays      1,000 seeded draws of the rows with a truth, of each table
python benchmarks/calibration choice       isotonic regression or Venn-Abers: how far each is from what is true
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import receipt
from packaged_texts import SENTENCES, WORDS
from tables import TABLES, Table

from gristmill.scoring.calibration import Aims, calibrate
from gristmill.scoring.statistics.isotonic import cross_fit, fit_isotonic
from gristmill.scoring.statistics.venn_abers import fit_venn_abers
from gristmill.scoring.wanted import choose_wanted

CONFIDENCE = 0.9
PACKAGES = ("numpy", "scipy")


class Replays:
    """Over all draws of one table: how often each interval holds what is true of the whole table."""

    def __init__(self, table: Table, wanted: bool) -> None:
        self._table = table
        self._wanted = wanted
        self._true = _true(table)
        self._rows: dict[str, list[float]] = defaultdict(list)
        self._held: dict[Any, list[bool]] = defaultdict(list)
        self._width: dict[Any, list[float]] = defaultdict(list)
        self._plain: dict[Any, list[float]] = defaultdict(list)
        self._replays = 0
        self._method = ""

    def replay(self, seed: int) -> None:
        table, aims = self._table, Aims(CONFIDENCE, self._table.cut, self._table.truth_cut)
        scores = table.scores.tolist()
        draw = np.random.default_rng(seed)
        known = np.zeros(len(scores), bool)
        first = table.known // 3 if self._wanted else table.known
        known[draw.choice(len(scores), first, replace=False)] = True
        strata = None
        if self._wanted:
            wanted = choose_wanted(scores, self._some(known), table.known - first, aims=aims)
            known[self._drawn(wanted.stratum, wanted.rows, known, draw)] = True
            strata = wanted.stratum
        found = calibrate(scores, self._some(known), aims=aims, by=table.groups, strata=strata)
        self._replays += 1
        self._method = found.guarantee.method if found.guarantee else ""
        low, high = (np.array(ends, float) for ends in (found.low, found.high))
        inside = (low <= table.truths) & (table.truths <= high)
        self._rows["held"].append(float(inside[~known].mean()))
        self._rows["held, rows with a truth"].append(float(inside[known].mean()))
        self._rows["width"].append(float(np.nanmean(np.where(np.isfinite(high - low), high - low, np.nan))))
        calibrated = np.array(found.calibrated, float)
        self._rows["calibrated: mean squared error"].append(float(((calibrated - table.truths) ** 2)[~known].mean()))
        self._rows["raw: mean squared error"].append(float(((table.scores - table.truths) ** 2).mean()))
        for each in found.statements:
            key = (each.what, each.group)
            if each.estimate is not None:
                self._held[key].append(bool(each.estimate.low <= self._true[key] <= each.estimate.high))
                self._width[key].append(each.estimate.high - each.estimate.low)
                if not self._wanted:
                    self._plain[key].append(self._classical(each.what, each.group, known))

    def told(self) -> dict[str, Any]:
        statements = []
        for key, held in self._held.items():
            count, good = len(held), sum(held)
            # Whether so few could be by chance, were it 90 % in the long run: one-sided, of a thousand.
            chance = float(stats.binom.cdf(good, count, CONFIDENCE))
            statements.append(
                {
                    "what": key[0],
                    "group": key[1],
                    "true": round(float(self._true[key]), 4),
                    "given": count,
                    "held": round(good / count, 4),
                    "given_and_missed": round((count - good) / self._replays, 4),
                    "chance_of_so_few": round(chance, 5),
                    "width": round(float(np.mean(self._width[key])), 4),
                    "width_without_scores": round(float(np.mean(self._plain[key])), 4) if self._plain[key] else None,
                }
            )
        rows = {name: round(float(np.mean(values)), 4) for name, values in self._rows.items()}
        rows["standard error of held"] = round(float(np.std(self._rows["held"]) / self._replays**0.5), 5)
        return {
            "table": self._table.name,
            "rows": len(self._table.scores),
            "truths": self._table.known,
            "drawn": "a third at random, then as --truth-wanted says" if self._wanted else "at random",
            "replays": self._replays,
            "intervals_of_rows": {"method": self._method, **rows},
            "statements": statements,
        }

    def _drawn(self, stratum: Any, rows: list[int], known: Any, draw: Any) -> Any:
        """As many of each stratum as are wanted, by the replay's own draw."""
        layers = np.array(stratum)
        counts = np.bincount(layers[rows])
        return np.concatenate(
            [
                draw.choice(np.flatnonzero((layers == number) & ~known), count, replace=False)
                for number, count in enumerate(counts)
                if count
            ]
        )

    def _some(self, known: Any) -> list[float | None]:
        return [truth if given else None for truth, given in zip(self._table.truths.tolist(), known, strict=True)]

    def _classical(self, what: str, group: str | None, known: Any) -> float:
        """The width of the interval from the truths alone: a mean's by Student's t, a share's by Wilson."""
        table = self._table
        among = known if group is None else known & (table.groups == group)
        above, selected = table.truths >= table.truth_cut, table.scores >= table.cut
        values = {
            "mean": table.truths[among],
            "share": above[among],
            "precision": above[among & selected],
            "recall": selected[among & above],
        }[what]
        if what == "mean":
            quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
            return float(2 * quantile * values.std(ddof=1) / len(values) ** 0.5)
        found = stats.binomtest(int(values.sum()), len(values)).proportion_ci(CONFIDENCE, "wilson")
        return float(found.high - found.low)


def _true(table: Table) -> dict[tuple[str, str | None], float]:
    above, selected = table.truths >= table.truth_cut, table.scores >= table.cut
    found: dict[tuple[str, str | None], float] = {}
    for group in (None, *np.unique(table.groups).tolist()):
        among = np.ones(len(above), bool) if group is None else table.groups == group
        found["mean", group] = table.truths[among].mean()
        found["share", group] = above[among].mean()
        found["precision", group] = above[among & selected].mean()
        found["recall", group] = selected[among & above].mean()
    return found


def choice() -> list[dict[str, Any]]:
    """Brier score and log loss above those of the true probabilities, for truths of 0 and 1; 40 draws each."""
    found = []
    for name in ("balanced", "rare", "equal scores"):
        for known in (30, 60, 120, 300, 1000):
            losses: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for seed in range(40):
                draw = np.random.default_rng(seed)
                scores = draw.normal(0, 1, 4000)
                scores = scores.round(0) if name == "equal scores" else scores
                chance = 1 / (1 + np.exp(-2 * scores + (4 if name == "rare" else 0)))
                truths = (draw.random(4000) < chance).astype(float)
                rows = draw.permutation(4000)
                mine, others = rows[:known], rows[known:]
                for method, fit in (("isotonic", fit_isotonic), ("Venn-Abers", fit_venn_abers)):
                    given = cross_fit(scores[mine], truths[mine], np.ones(known), np.random.default_rng(0), fit)
                    told = given.of_others(scores[others]).clip(1e-6, 1 - 1e-6)
                    brier = float(((told - chance[others]) ** 2).mean())
                    loss = -np.log(np.where(truths[others] == 1, told, 1 - told)).mean()
                    least = -np.log(np.where(truths[others] == 1, chance[others], 1 - chance[others])).mean()
                    losses[method].append((brier, float(loss - least)))
            means = {method: np.mean(each, axis=0).round(5).tolist() for method, each in losses.items()}
            found.append({"scores": name, "truths": known, "brier_and_log_loss_above_the_true": means})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["replays", "choice"])
    parser.add_argument("--replays", type=int, default=1000)
    parser.add_argument("--tables", default=",".join(TABLES))
    given = parser.parse_args()
    if given.what == "choice":
        print(receipt.write("calibration-choice", {"found": choice()}, PACKAGES))
        return
    sources = {"sentences": f"npm {SENTENCES}", "words": f"PyPI {WORDS}"}
    for name in given.tables.split(","):
        for wanted in (False, True) if name == "biased" else (False,):
            replays = Replays(TABLES[name](), wanted)
            for seed in range(given.replays):
                replays.replay(seed)
            content = {"confidence": CONFIDENCE, "source": sources.get(name, "drawn"), **replays.told()}
            print(receipt.write(f"calibration-{name}{'-wanted' * wanted}", content, PACKAGES), flush=True)


if __name__ == "__main__":
    main()
