"""The page of a scored table: one self-contained file, for a phone, a screen and a printer. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import jinja2

from gristmill.scoring.job import Scores
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.scale import Scale
from gristmill.scoring.truth import Agreement, agreement
from gristmill.telemetry.progress import duration
from gristmill.wire.batch import Batch

_BARS = 22
_LISTED = 10
_LISTED_ERRORS = 50
#: Of the drawings, in their own units.
_WIDTH, _HEIGHT, _MARGIN = 640.0, 200.0, 34.0


class Prices(NamedTuple):
    """What a hosted API takes for a million tokens, in whatever currency."""

    prompt: float
    output: float


class ScoreReport(NamedTuple):
    """``outcomes`` are of one score, one a row, beside the rows' ``ids``."""

    name: str
    scale: Scale
    ids: Sequence[object]
    outcomes: Sequence[Outcome]
    agreement: Agreement | None


def score_reports(
    ids: Sequence[object],
    scores: Scores,
    names: Sequence[str],
    scale: Scale,
    truths: Sequence[float | None] | None,
) -> list[ScoreReport]:
    """One a score, each compared with the ``truths``, where there are any."""
    found = []
    for place, name in enumerate(names):
        outcomes = [row[place] for row in scores.outcomes]
        compared = agreement([each.score for each in outcomes], truths) if truths is not None else None
        found.append(ScoreReport(name, scale, ids, outcomes, compared))
    return found


def page(title: str, model: str, reports: Sequence[ScoreReport], batches: Sequence[Batch], prices: Prices) -> str:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["short"] = _short
    source = resources.files("gristmill.scoring").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=title, model=model, scores=[_view(report) for report in reports], bill=_bill(batches, prices)
    )


def _view(report: ScoreReport) -> dict[str, object]:
    rows = list(zip(map(str, report.ids), report.outcomes, strict=True))
    scored = sorted(((row, outcome) for row, outcome in rows if outcome.score is not None), key=_by_score)
    failed = [(row, outcome.error) for row, outcome in rows if outcome.score is None]
    return {
        "name": report.name,
        "scale": report.scale.text,
        "rows": len(rows),
        "failed": len(failed),
        "errors": failed[:_LISTED_ERRORS],
        "mean": math.fsum(outcome.score or 0.0 for _, outcome in scored) / len(scored) if scored else None,
        "median": statistics.median(outcome.score or 0.0 for _, outcome in scored) if scored else None,
        "histogram": _histogram([outcome.score or 0.0 for _, outcome in scored], report.scale),
        "top": scored[::-1][:_LISTED],
        "bottom": scored[:_LISTED],
        "unsure": sorted((each for each in scored if each[1].entropy is not None), key=_by_entropy)[:_LISTED],
        "reasons": any(outcome.reason for _, outcome in scored),
        "methods": {
            method: sum(outcome.method == method for _, outcome in scored)
            for method in sorted({outcome.method for _, outcome in scored})
        },
        "agreement": report.agreement,
        "calibration": _calibration(report.agreement, report.scale) if report.agreement else None,
    }


def _by_score(row: tuple[str, Outcome]) -> float:
    return row[1].score or 0.0


def _by_entropy(row: tuple[str, Outcome]) -> float:
    return -(row[1].entropy or 0.0)


def _histogram(scores: Sequence[float], scale: Scale) -> dict[str, object]:
    """Bars over the scale: (x, y, width, height, from, to, rows)."""
    least, most = scale.values[0], scale.values[-1]
    counts = [0] * _BARS
    for score in scores:
        counts[min(int((score - least) / (most - least) * _BARS), _BARS - 1)] += 1
    tallest = max(counts) or 1
    width = (_WIDTH - 2 * _MARGIN) / _BARS
    room = _HEIGHT - 2 * _MARGIN
    bars = [
        {
            "x": round(_MARGIN + place * width, 1),
            "y": round(_HEIGHT - _MARGIN - room * count / tallest, 1),
            "width": round(width - 2, 1),
            "height": round(room * count / tallest, 1),
            "text": f"{_short(least + (most - least) * place / _BARS)} to "
            f"{_short(least + (most - least) * (place + 1) / _BARS)}: {count:,} rows",
        }
        for place, count in enumerate(counts)
    ]
    ticks = [{"x": round(_across(value, scale), 1), "text": _short(value)} for value in _ticks(scale)]
    return {"bars": bars, "ticks": ticks, "width": _WIDTH, "height": _HEIGHT, "tallest": tallest}


def _calibration(agreement: Agreement, scale: Scale) -> dict[str, object] | None:
    """Points at the mean score and mean truth of each bin, where the truths lie on the scale."""
    least, most = scale.values[0], scale.values[-1]
    bins = agreement.calibration
    if not bins or not all(least <= each.truth <= most for each in bins):
        return None
    side = _WIDTH / 2

    def place(value: float) -> float:
        return _MARGIN + (side - 2 * _MARGIN) * (value - least) / (most - least)

    points = [
        {
            "x": round(place(each.score), 1),
            "y": round(side - place(each.truth), 1),
            "text": f"{each.rows:,} rows: score {_short(each.score)}, truth {_short(each.truth)}",
        }
        for each in bins
    ]
    ticks = [{"at": round(place(value), 1), "text": _short(value)} for value in _ticks(scale)]
    return {"side": side, "margin": _MARGIN, "points": points, "ticks": ticks}


def _across(value: float, scale: Scale) -> float:
    least, most = scale.values[0], scale.values[-1]
    return _MARGIN + (_WIDTH - 2 * _MARGIN) * (value - least) / (most - least)


def _ticks(scale: Scale) -> list[float]:
    """At most eleven of the scale's values, evenly chosen."""
    step = max(math.ceil((len(scale.values) - 1) / 10), 1)
    return list(dict.fromkeys(scale.values[::step]))


def _bill(batches: Sequence[Batch], prices: Prices) -> dict[str, object]:
    extra = [batch.gristmill for batch in batches if batch.gristmill is not None]
    usages = [batch.usage for batch in batches if batch.usage is not None]
    prompt = sum(usage.input_tokens for usage in usages)
    cached = [usage.input_tokens_details.cached_tokens for usage in usages]
    known = [each for each in cached if each is not None]
    output = sum(usage.output_tokens for usage in usages)
    seconds = sum((batch.completed_at or 0) - batch.created_at for batch in batches if batch.completed_at is not None)
    return {
        "batches": len(batches),
        "prompt": prompt,
        "cached": sum(known) if len(known) == len(cached) else None,
        "output": output,
        "time": duration(max(seconds, 1)),
        "cost": (prompt * prices.prompt + output * prices.output) / 1e6 if any(prices) else None,
        "deduplicated": sum(each.plan.deduplicated or 0 for each in extra if each.plan is not None),
        "reused": sum(each.reused_answers for each in extra),
    }


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:.3g}"
