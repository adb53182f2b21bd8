"""The prefix tree of a job and its token bill, as one self-contained HTML page. Pure."""

from __future__ import annotations

import html

from gristmill.planning.job_plan import JobPlan
from gristmill.planning.report import PlanReport
from gristmill.planning.token_bill import GroupBill
from gristmill.telemetry.progress import duration

_WIDTH = 1000.0
_ROW = 30
#: Groups narrower than this (of ``_WIDTH``) are not drawn.
_LEAST = 0.5
_HUES = (212, 168, 32, 280, 340, 100)

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: #fff; pointer-events: none; }
.bar { display: flex; height: 1.6rem; background: #8884; border-radius: 3px; overflow: hidden; }
.bar span { background: hsl(212 60% 45%); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: right; padding: .2rem .5rem; }
th:first-child, td:first-child { text-align: left; } tr { border-bottom: 1px solid #8884; }
.scroll { overflow-x: auto; } .note { opacity: .75; font-size: .9rem; }
"""


def page(title: str, plan: JobPlan, report: PlanReport) -> str:
    bills = report.groups
    name = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>{name}: {plan.rows:,} rows, what they share</h1>"
        f"{_bill(report)}<h2>Prefix tree</h2>{_tree(plan, bills)}"
        '<p class="note">Width: prompt tokens of the rows in a group. Depth: groups within groups; each shares what '
        "the group above it shares, and more. Point at a group for its numbers.</p>"
        f"<h2>Largest groups</h2>{_table(bills)}"
        f'<p class="note">Tokens are {html.escape(report.token_source)}.</p></body></html>\n'
    )


def _bill(report: PlanReport) -> str:
    bill, duplicates = report.tokens, report.duplicates
    share = bill.computed / bill.sent if bill.sent else 0
    twice = f" Rows that get another row's answer, as they ask the same: <b>{duplicates:,}</b>." if duplicates else ""
    time = ""
    if report.pilot is not None:
        low, seconds, high = map(duration, (report.pilot.low, report.pilot.seconds, report.pilot.high))
        time = f"<p>Time, by a pilot of {report.pilot.rows} rows: <b>{seconds}</b> ({low} to {high}, 90 %).</p>"
    return (
        f"{time}<p>Sent: <b>{bill.sent:,}</b> prompt tokens. To compute, in planned order and with a prefix cache: "
        f"<b>{bill.computed:,}</b> ({share:.1%}).{twice}</p>"
        f'<div class="bar" role="img" aria-label="{share:.1%} of the prompt tokens are computed">'
        f'<span style="width:{share:.2%}"></span></div>'
    )


def _tree(plan: JobPlan, bills: list[GroupBill]) -> str:
    """One rectangle a group, under the group around it, as wide as its rows' prompts."""
    scale = _WIDTH / max(plan.prompt_size, 1)
    begins: list[float] = []
    taken: dict[int | None, float] = {}
    boxes = [_box(0, 0, _WIDTH, 215, f"all {plan.rows:,} rows", f"all {plan.rows:,} rows")]
    deepest = 0
    for index, (group, bill) in enumerate(zip(plan.groups, bills, strict=True)):
        around = 0.0 if group.parent is None else begins[group.parent]
        begin = taken.get(group.parent, around)
        width = group.prompt_size * scale
        begins.append(begin)
        taken[group.parent] = begin + width
        if width < _LEAST:
            continue
        deepest = max(deepest, bill.depth + 1)
        label = f"{bill.rows:,} rows share {bill.shared:,}"
        tip = f"{label} tokens; {bill.own_per_row:,g} more a row; {bill.saved:,} saved; from line {bill.first_line:,}"
        boxes.append(_box(begin, (bill.depth + 1) * _ROW, width, _HUES[index % len(_HUES)], label, tip))
    height = (deepest + 1) * _ROW
    return f'<svg viewBox="0 0 {_WIDTH:g} {height}" role="img" aria-label="Prefix tree">{"".join(boxes)}</svg>'


def _box(x: float, y: float, width: float, hue: int, label: str, tip: str) -> str:
    fits = f'<text x="{x + 6:.1f}" y="{y + 19}">{label}</text>' if len(label) * 6.5 + 8 < width else ""
    return (
        f'<g><title>{tip}</title><rect x="{x:.2f}" y="{y}" width="{max(width - 0.5, 0.3):.2f}" height="{_ROW - 2}" '
        f'fill="hsl({hue} 45% 42%)"/>{fits}</g>'
    )


def _table(bills: list[GroupBill], most: int = 50) -> str:
    if not bills:
        return "<p>No two rows share the beginning of their prompt.</p>"
    largest = sorted(bills, key=lambda bill: -bill.saved)[:most]
    rows = "".join(
        f"<tr><td>{bill.first_line:,}</td><td>{bill.depth}</td><td>{bill.rows:,}</td><td>{bill.shared:,}</td>"
        f"<td>{bill.own_per_row:,g}</td><td>{bill.saved:,}</td></tr>"
        for bill in largest
    )
    head = "<th>from line</th><th>depth</th><th>rows</th><th>shared tokens</th><th>more a row</th><th>tokens saved</th>"
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'
