"""What the rows of a job share and what that costs, as a page. Pure."""

from __future__ import annotations

from gristmill.html_page import render, told_date
from gristmill.planning.job_plan import JobPlan
from gristmill.planning.prefix_boxes import drawn, prefix_boxes
from gristmill.planning.report import PlanReport
from gristmill.planning.token_bill import Prices

_LISTED_GROUPS = 50


def plan_page(title: str, plan: JobPlan, report: PlanReport, prices: Prices, engine: str | None, made_at: float) -> str:
    """As HTML. ``engine``: of the pilot, if there was one, in words; ``made_at``: Unix time."""
    bill = report.tokens
    return render(
        "planning/plan.html.jinja",
        title=title,
        report=report,
        share=bill.computed / bill.sent if bill.sent else 0.0,
        cost=prices.told(report.cost_avoided) if report.cost_avoided is not None else "",
        price=prices.text,
        engine=engine,
        tree=drawn(prefix_boxes(plan, report.groups), plan.rows),
        groups=sorted(report.groups, key=lambda bill: -bill.saved)[:_LISTED_GROUPS],
        made_at=told_date(made_at),
    )
