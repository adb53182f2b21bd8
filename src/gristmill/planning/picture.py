"""What the rows of a job share and what that costs, as a page. Pure."""

from __future__ import annotations

from gristmill.html_page import render, told_date
from gristmill.planning.job_plan import JobPlan
from gristmill.planning.report import PlanReport
from gristmill.planning.token_bill import GroupBill, Prices

#: Heights in pixels: of a level of the tree, boxes and the gap below them.
_LEVEL = 30
#: Groups narrower than this share of the page (in percent) are not drawn, and such boxes have no room for a text.
_LEAST, _LEAST_WITH_TEXT = 0.05, 3.0
_LISTED_GROUPS = 50
_HUES = (212, 168, 32, 280, 340, 100)


def plan_page(title: str, plan: JobPlan, report: PlanReport, prices: Prices, engine: str | None, made_at: float) -> str:
    """As HTML. ``engine``: of the pilot, if there was one, in words; ``made_at``: Unix time."""
    boxes, height = _tree(plan, report.groups)
    bill = report.tokens
    return render(
        "planning/plan.html.jinja",
        title=title,
        report=report,
        share=bill.computed / bill.sent if bill.sent else 0.0,
        cost=prices.told(report.cost_avoided) if report.cost_avoided is not None else "",
        price=prices.text,
        engine=engine,
        boxes=boxes,
        height=height,
        groups=sorted(report.groups, key=lambda bill: -bill.saved)[:_LISTED_GROUPS],
        made_at=told_date(made_at),
    )


def _tree(plan: JobPlan, bills: list[GroupBill]) -> tuple[list[dict[str, object]], int]:
    """A box a group, under the group around it, as wide as its rows' prompts; and the height of all. Widths and places
    in percent."""
    scale = 100 / max(plan.prompt_size, 1)
    begins: list[float] = []
    taken: dict[int | None, float] = {}
    boxes = [_box(0, 0, 100, 215, f"all {plan.rows:,} rows", f"all {plan.rows:,} rows")]
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
        label = f"{bill.rows:,} rows share {bill.shared:,} tokens"
        tip = f"{label}; {bill.own_per_row:,g} more a row; {bill.saved:,} saved; from line {bill.first_line:,}"
        boxes.append(_box(begin, bill.depth + 1, width, _HUES[index % len(_HUES)], label, tip))
    return boxes, (deepest + 1) * _LEVEL


def _box(left: float, level: int, width: float, hue: int, label: str, tip: str) -> dict[str, object]:
    narrow = width < _LEAST_WITH_TEXT
    return {
        "left": round(left, 3), "width": round(max(width - 0.05, 0.03), 3), "top": level * _LEVEL, "hue": hue,
        "label": "" if narrow else label, "tip": tip, "narrow": narrow,
    }  # fmt: skip
