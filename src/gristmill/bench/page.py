"""The receipt as one HTML file that needs nothing else, and as a PNG."""

from __future__ import annotations

import html
from pathlib import Path

from gristmill.bench.advice import span
from gristmill.bench.receipt import BenchReceipt, StrategyRecord

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; width: 100% } th, td { padding: .35em .6em; border-bottom: 1px solid #ddd }
th { text-align: left } td.n { text-align: right; font-variant-numeric: tabular-nums }
.bar { background: #3b6ea5; height: .8em; display: inline-block } .about { color: #666; font-size: .9em }
.advice { font-size: 1.2em; border-left: 4px solid #3b6ea5; padding-left: .8em }
"""

#: Title and cell text of every column but the first; the same for the page and the terminal.
COLUMNS = (
    "rows/s", "range", "long job, rows/s", "prompt tok.", "cached tok.", "output tok.", "loads", "failed",
    "score diff.", "Kendall tau", "changed",
)  # fmt: skip


def cells(found: StrategyRecord) -> list[str]:
    """Token counts are per row; a dash is where the engine does not tell or nothing is to be compared."""
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


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def page(receipt: BenchReceipt) -> str:
    fastest = max((each.rows_per_second for each in receipt.strategies), default=0.0) or 1.0
    head = "".join(f"<th>{html.escape(title)}</th>" for title in ("strategy", *COLUMNS))
    rows = "".join(_row(each, fastest) for each in receipt.strategies)
    times = "".join(
        f"<li>{html.escape(each.name)}: {html.escape(span(each.forecast))}</li>"
        for each in receipt.strategies
        if each.forecast is not None
    )
    job = receipt.job_rows
    machine = receipt.machine
    facts = (
        f"{receipt.engine} engine, model {receipt.model}; {receipt.rounds} rounds of {receipt.rows} rows "
        f"(more for those that have many in flight) from {receipt.rows_file}; "
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb:g} GB, {machine.system}; "
        f"Gristmill {receipt.gristmill}, {receipt.measured_at}"
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>gristmill bench</title><style>{_STYLE}</style>
<h1>Ways to send a batch's rows</h1>
<p class="advice">{html.escape(receipt.advice)}</p>
<table><tr>{head}</tr>{rows}</table>
<p class="about">Rates are of the rows after a turn's first, which computes the shared prompt; medians over the rounds.
Tokens are per row; a dash is what the engine does not report. Every turn's prompts begin with a line of their own, so
that no way finds what another has computed. The last three columns compare answers with the same rows asked alone.</p>
<h2>{job:,} rows would take</h2><ul>{times}</ul>
<p class="about">90 % interval (Student's) of the mean speed over the rounds, if all rows are like these.</p>
<p class="about">{html.escape(facts)}</p></html>
"""


def _row(found: StrategyRecord, fastest: float) -> str:
    name = f"<b>{html.escape(found.name)}</b><br><span class=about>{html.escape(found.about)}</span>"
    if found.missing:
        return f'<tr><td>{name}</td><td colspan="{len(COLUMNS)}">not measured: {html.escape(found.missing)}</td></tr>'
    width = max(1, round(100 * found.rows_per_second / fastest))
    name += f'<br><span class="bar" style="width:{width}%"></span>'
    return (
        f"<tr><td>{name}</td>" + "".join(f'<td class="n">{html.escape(cell)}</td>' for cell in cells(found)) + "</tr>"
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
