"""A calibration as the page shows it. Pure."""

from __future__ import annotations

from itertools import groupby

import msgspec

from gristmill.html_page import render, short
from gristmill.scoring.calibration import MEAN, Calibration, Statement
from gristmill.scoring.calibration_words import promises, statement_name, too_few


class StatementView(msgspec.Struct):
    """As texts, or ``why`` there is no estimate. The estimate's place, and the interval's begin and width, in percent
    of their own range."""

    name: str
    truths: int
    why: str | None = None
    value: str = ""
    low: str = ""
    high: str = ""
    at: float = 0.0
    begin: float = 0.0
    wide: float = 0.0


class GroupView(msgspec.Struct):
    name: str
    rows: int
    statements: list[StatementView]


class CalibrationView(msgspec.Struct):
    """``groups``: the whole table first. ``confidence`` in percent, as text."""

    promises: list[str]
    random: bool
    confidence: str
    groups: list[GroupView]


def calibration_view(found: Calibration) -> CalibrationView:
    told = [each.estimate for each in found.statements if each.what == MEAN and each.estimate is not None]
    least, most = min((each.low for each in told), default=0.0), max((each.high for each in told), default=1.0)
    groups = []
    for name, statements in groupby(found.statements, key=lambda each: each.group):
        listed = list(statements)
        ends = {True: (least, most), False: (0.0, 1.0)}
        statements_told = [_row(each, found, *ends[each.what == MEAN]) for each in listed]
        groups.append(GroupView("the whole table" if name is None else name, listed[0].rows, statements_told))
    return CalibrationView(promises(found), found.random, _percent(found), groups)


def calibration_page(table: str, made_at: str, name: str, found: Calibration) -> str:
    """A page of its own, as HTML."""
    view = calibration_view(found)
    return render("scoring/calibration_page.html.jinja", table=table, name=name, calibrated=view, made_at=made_at)


def _row(statement: Statement, found: Calibration, least: float, most: float) -> StatementView:
    name, estimate = statement_name(statement.what, found), statement.estimate
    if estimate is None:
        return StatementView(name, statement.truths, too_few(statement))
    width = (most - least) or 1.0
    at, begin, end = (round(100 * min(max((each - least) / width, 0.0), 1.0), 1) for each in estimate)
    value, low, high = (short(each) for each in estimate)
    return StatementView(name, statement.truths, None, value, low, high, at, begin, round(max(end - begin, 0.5), 1))


def _percent(found: Calibration) -> str:
    return f"{100 * found.aims.confidence:g}"
