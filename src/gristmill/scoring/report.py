"""The page of a scored table. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gristmill.html_page import render, short, told_date
from gristmill.planning.token_bill import Prices
from gristmill.scoring.calibration import Calibration
from gristmill.scoring.calibration_view import calibration_view
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.prompt import Instrument
from gristmill.scoring.scale import Scale
from gristmill.scoring.spent import spent_on
from gristmill.scoring.truth import Agreement, agreement
from gristmill.wire.batch import Batch

_BARS = 21
_LISTED = 10
_LISTED_ERRORS = 50
#: In characters; of all ticks together, on a phone, with a space behind each.
_LONGEST_TICK, _ROOM_FOR_TICKS = 12, 36
#: In the drawing of two axes there is room for so many beside one.
_LONGEST_BESIDE = 4
#: Of the calibration's drawing, in its own units.
_SIDE, _MARGIN = 320.0, 34.0
#: How a score was come by, in words.
_METHODS = {
    "labels": "from the probabilities of all labels",
    "top_logprobs": "from the probabilities of the likeliest first words of an answer",
    "generate": "as the model wrote it",
}
#: The measures of agreement in words.
_MEASURES = {
    "Spearman": "rank correlation (Spearman): 1 is the same order",
    "Kendall": "rank correlation (Kendall's tau-b)",
    "AUC": "two rows in the right order (AUC): 0.5 is chance",
    "mean absolute error": "mean absolute error",
}


class About(NamedTuple):
    """What was scored how. ``engine`` in words, such as "ollama engine"; ``examples``: how many; ``made_at``: Unix
    time."""

    table: str
    instrument: Instrument
    model: str
    engine: str
    made_at: float


class ScoreReport(NamedTuple):
    """``outcomes`` are of one score, one a row, beside the rows' ``ids``; ``text_of`` gives what was sent of a
    row."""

    name: str
    scale: Scale
    ids: Sequence[object]
    outcomes: Sequence[Outcome]
    agreement: Agreement | None
    text_of: Callable[[int], str]
    calibration: Calibration | None = None


def score_reports(
    ids: Sequence[object],
    outcomes: Sequence[Sequence[Outcome]],
    names: Sequence[str],
    scale: Scale,
    truths: Sequence[float | None] | None,
    text_of: Callable[[int], str],
) -> list[ScoreReport]:
    """One a score, each compared with the ``truths``, where there are any; ``outcomes`` by row and score."""
    found = []
    for place, name in enumerate(names):
        column = [of_row[place] for of_row in outcomes]
        compared = agreement([each.score for each in column], truths) if truths is not None else None
        found.append(ScoreReport(name, scale, ids, column, compared, text_of))
    return found


def score_page(about: About, reports: Sequence[ScoreReport], batches: Sequence[Batch], prices: Prices) -> str:
    """As HTML."""
    instrument = about.instrument
    return render(
        "scoring/report.html.jinja",
        about={
            "table": about.table,
            "model": about.model,
            "engine": about.engine,
            "scale": instrument.scale.text,
            "criteria": instrument.criteria,
            "examples": len(instrument.examples),
            "rubric": instrument.rubric,
        },
        made_at=told_date(about.made_at),
        measures=_MEASURES,
        scores=[_view(report) for report in reports],
        spent=_spent(batches, prices),
    )


class _Row(NamedTuple):
    id: str
    outcome: Outcome
    text: str


def _view(report: ScoreReport) -> dict[str, object]:
    def rows(listed: Sequence[int]) -> list[_Row]:
        return [_Row(str(report.ids[row]), outcomes[row], report.text_of(row)) for row in listed]

    outcomes = report.outcomes
    scores = {row: outcome.score for row, outcome in enumerate(outcomes) if outcome.score is not None}
    ranked = sorted(scores, key=scores.__getitem__)
    unsure = sorted((row for row in ranked if outcomes[row].entropy), key=lambda row: -(outcomes[row].entropy or 0.0))
    failed = [(str(report.ids[row]), each.error) for row, each in enumerate(outcomes) if each.score is None]
    methods = Counter(outcomes[row].method for row in ranked)
    return {
        "name": report.name,
        "rows": len(outcomes),
        "failed": len(failed),
        "errors": failed[:_LISTED_ERRORS],
        "mean": statistics.fmean(scores.values()) if scores else None,
        "median": statistics.median(scores.values()) if scores else None,
        "histogram": _histogram(list(scores.values()), report.scale),
        "top": rows(ranked[::-1][:_LISTED]),
        "bottom": rows(ranked[:_LISTED]),
        "unsure": rows(unsure[:_LISTED]),
        "reasons": any(outcome.reason for outcome in outcomes),
        "methods": [(_METHODS[method], count) for method, count in sorted(methods.items())],
        "agreement": report.agreement,
        "calibrated": calibration_view(report.calibration) if report.calibration is not None else None,
        "calibration": _calibration_drawing(report.agreement, report.scale) if report.agreement else None,
    }


def histogram_of(scores: Sequence[float], scale: Scale) -> list[tuple[str, int]]:
    """Scores counted over the scale, in equal steps from its lowest value on: from where to where, and how many."""
    least, most = scale.values[0], scale.values[-1]
    counts = [0] * _BARS
    for score in scores:
        counts[min(round((score - least) / (most - least) * (_BARS - 1)), _BARS - 1)] += 1
    found = []
    for place, count in enumerate(counts):
        # Each bar stands around its value, so that those of whole labels stand over their names.
        around = (min(max((place + half) / (_BARS - 1), 0.0), 1.0) for half in (-0.5, 0.5))
        begin, end = (short(least + (most - least) * share) for share in around)
        found.append((f"{begin} to {end}", count))
    return found


def _histogram(scores: Sequence[float], scale: Scale) -> dict[str, object]:
    """Bars over the scale, and its ticks; heights and places in percent."""
    least, most = scale.values[0], scale.values[-1]
    counted = histogram_of(scores, scale)
    tallest = max(count for _, count in counted) or 1
    bars = [
        {"height": round(100 * count / tallest, 1), "text": f"{between}: {count:,} rows"} for between, count in counted
    ]
    ticks = [
        {"at": round(100 * ((value - least) / (most - least) * (_BARS - 1) + 0.5) / _BARS, 1), "text": name}
        for value, name in _ticks(scale)
    ]
    return {"bars": bars, "ticks": ticks, "tallest": tallest}


def _calibration_drawing(agreement: Agreement, scale: Scale) -> dict[str, object] | None:
    """Points at the mean score and mean truth of each bin, where the truths lie on the scale."""
    least, most = scale.values[0], scale.values[-1]
    bins = agreement.calibration
    if not bins or not all(least <= each.truth <= most for each in bins):
        return None
    side = _SIDE

    def place(value: float) -> float:
        return _MARGIN + (side - 2 * _MARGIN) * (value - least) / (most - least)

    points = [
        {
            "x": round(place(each.score), 1),
            "y": round(side - place(each.truth), 1),
            "text": f"{each.rows:,} rows: score {short(each.score)}, truth {short(each.truth)}",
        }
        for each in bins
    ]
    ticks = [
        {"at": round(place(value), 1), "text": name if len(name) <= _LONGEST_BESIDE else short(value)}
        for value, name in _ticks(scale)
    ]
    return {"side": side, "margin": _MARGIN, "points": points, "ticks": ticks}


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    """At most eleven of the scale's values, evenly chosen, each with a label that is worth it; as many as a phone has
    room for side by side."""
    labels = [each if len(each) <= _LONGEST_TICK else each[:_LONGEST_TICK] + "…" for each in scale.labels]
    step = max(math.ceil((len(labels) - 1) / 10), 1)
    while step < len(labels) and sum(len(each) + 1 for each in labels[::step]) > _ROOM_FOR_TICKS:
        step += 1
    return list(dict(zip(scale.values[::step], labels[::step], strict=True)).items())


def _spent(batches: Sequence[Batch], prices: Prices) -> dict[str, object]:
    spent = spent_on(batches)
    cost = prices.cost(spent.prompt, spent.output)
    return spent._asdict() | {"cost": prices.told(cost) if cost is not None else None, "price": prices.text}
