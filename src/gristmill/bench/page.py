"""The receipt as a page, as the cells of a table, and as a plot."""

from __future__ import annotations

import calendar
import time
from pathlib import Path
from typing import NamedTuple

from gristmill.bench.advice import span, too_few_rows
from gristmill.bench.receipt import BenchReceipt, StrategyRecord
from gristmill.html_page import render, told_date


class Column(NamedTuple):
    title: str
    meaning: str


#: Of all tables but for their first column, on the page and on the terminal.
COLUMNS = (
    Column("rows/s", "rows of a turn over its seconds, the median over the rounds"),
    Column("range", "the slowest and the fastest round"),
    Column("long job, rows/s", "while the engine was full, which is the speed of a long job"),
    Column("prompt tokens", "of a row"),
    Column("cached tokens", "of a row's prompt, that the engine had computed before"),
    Column("output tokens", "of a row"),
    Column("model loads", "how often the engine loaded its model"),
    Column("failed", "rows without an answer"),
    Column("score diff.", "the mean difference from the same rows asked alone"),
    Column("rank corr.", "Kendall's tau-b with the same rows asked alone: 1 is the same order, 0 is chance"),
    Column("changed", "answers that differ from those of the same rows asked alone"),
)


def cells(found: StrategyRecord) -> list[str]:
    """In the order of ``COLUMNS``; a dash is where the engine does not tell or nothing is to be compared."""
    low, high = found.rows_per_second_range
    apart = found.drift
    return [
        f"{found.rows_per_second:,.2f}",
        f"{low:,.2f} - {high:,.2f}",
        _number(found.steady_rows_per_second, ",.2f"),
        f"{found.prompt_tokens_per_row:,.0f}",
        _number(found.cached_tokens_per_row, ",.0f"),
        f"{found.output_tokens_per_row:,.1f}",
        _number(found.loads, ",d"),
        f"{found.failed:,}",
        _number(apart.score_difference if apart else None, ".2f"),
        _number(apart.kendall_tau if apart else None, ".2f"),
        _number(apart.changed if apart else None, ".0%"),
    ]


def errors_of(found: StrategyRecord) -> list[str]:
    """Why rows failed, each reason once, a few of them."""
    return sorted({error for turn in found.turns for error in turn.errors})[:3]


def bench_page(receipt: BenchReceipt) -> str:
    """As HTML."""
    measured = [each for each in receipt.strategies if not each.missing]
    fastest = max((each.rows_per_second for each in measured), default=0.0) or 1.0
    return render(
        "bench/bench.html.jinja",
        receipt=receipt,
        made_at=told_date(calendar.timegm(time.strptime(receipt.measured_at, "%Y-%m-%dT%H:%M:%SZ"))),
        columns=COLUMNS,
        measured=[
            {
                "record": each,
                "rate": f"{each.rows_per_second:,.2f}",
                "width": round(100 * each.rows_per_second / fastest, 1),
                "time": span(each.forecast) if each.forecast is not None else "-",
                "too_few": too_few_rows(each) if each.rows_for_forecast else "",
                "cells": cells(each),
                "errors": errors_of(each),
            }
            for each in measured
        ],
        missing=[each for each in receipt.strategies if each.missing],
    )


def write_png(receipt: BenchReceipt, path: Path) -> bool:
    """A bar a strategy, with the range over the rounds; False where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    measured = [each for each in receipt.strategies if not each.missing]
    rates = [each.rows_per_second for each in measured]
    below = [each.rows_per_second - each.rows_per_second_range[0] for each in measured]
    above = [each.rows_per_second_range[1] - each.rows_per_second for each in measured]
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(measured)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    bars = axes.barh([each.name for each in measured], rates, xerr=[below, above], color="#3b6ea5", ecolor="#888")
    axes.bar_label(bars, labels=[f" {rate:,.2f}" for rate in rates])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("rows a second, median and range over the rounds")
    axes.set_title(f"{receipt.engine}, {receipt.model}")
    figure.savefig(path, dpi=150)
    return True


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
