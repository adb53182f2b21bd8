"""A calibration as the page shows it. Pure."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from gristmill.html_page import render, short
from gristmill.scoring.calibration import MEAN, Calibration, Statement
from gristmill.scoring.calibration_words import promises, statement_name, too_few


def calibration_view(found: Calibration) -> dict[str, Any]:
    """``groups``: the whole table first, each with its statements; bars are in percent of their own range."""
    told = [each.estimate for each in found.statements if each.what == MEAN and each.estimate is not None]
    least, most = min((each.low for each in told), default=0.0), max((each.high for each in told), default=1.0)
    groups = []
    for name, statements in groupby(found.statements, key=lambda each: each.group):
        listed = list(statements)
        ends = {True: (least, most), False: (0.0, 1.0)}
        groups.append(
            {
                "name": "the whole table" if name is None else name,
                "rows": listed[0].rows,
                "statements": [_row(each, found, *ends[each.what == MEAN]) for each in listed],
            }
        )
    return {"promises": promises(found), "random": found.random, "groups": groups, "confidence": _percent(found)}


def calibration_page(table: str, made_at: str, name: str, found: Calibration) -> str:
    """A page of its own, as HTML."""
    view = calibration_view(found)
    return render("scoring/calibration_page.html.jinja", table=table, name=name, calibrated=view, made_at=made_at)


def _row(statement: Statement, found: Calibration, least: float, most: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": statement_name(statement.what, found),
        "truths": statement.truths,
        "why": too_few(statement) if statement.estimate is None else None,
    }
    if (estimate := statement.estimate) is not None:
        width = (most - least) or 1.0
        places = [round(100 * min(max((each - least) / width, 0.0), 1.0), 1) for each in estimate]
        row |= {"value": short(estimate.value), "low": short(estimate.low), "high": short(estimate.high)}
        row |= {"at": places[0], "from": places[1], "wide": round(max(places[2] - places[1], 0.5), 1)}
    return row


def _percent(found: Calibration) -> str:
    return f"{100 * found.aims.confidence:g}"
