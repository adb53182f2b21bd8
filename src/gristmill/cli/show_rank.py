"""Showing a ranking: the best rows, and what it would cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from gristmill.cli import show
from gristmill.printable import printable
from gristmill.telemetry.progress import duration

if TYPE_CHECKING:
    from gristmill.scoring.rank.plan import PlannedStep, RankPlan
    from gristmill.scoring.rank.ranking import Ranked


def print_best(ranked: Ranked, ids: list[object]) -> None:
    table = Table(box=None, header_style="bold")
    for title in ("rank", "id", "score", "found by"):
        table.add_column(title, justify="left" if title in ("id", "found by") else "right")
    for place, (row, outcome, found) in enumerate(zip(ranked.rows, ranked.outcomes, ranked.found, strict=True), 1):
        score = "" if outcome.score is None else f"{outcome.score:.3f}"
        table.add_row(f"{place:,}", printable(ids[row]), score, found)
    show.print_table(table)


def print_plan(plan: RankPlan, budget: int | None, assumed: bool) -> None:
    table = Table(box=None, header_style="bold")
    for title in ("step", "rows", "time", "tokens"):
        table.add_column(title, justify="left" if title == "step" else "right")
    for step in plan.steps:
        table.add_row(step.name + (" (done)" if step.done else ""), *_figures(step))
    table.add_row("")
    table.add_row(plan.everything.name, *_figures(plan.everything))
    show.print_table(table)
    for line in plan_lines(plan, budget, assumed):
        show.console.print(line)


def plan_lines(plan: RankPlan, budget: int | None, assumed: bool) -> list[str]:
    every = plan.everything.rows
    lines = [f"About {plan.judged:,} of {every:,} rows would be judged ({plan.judged / every:.0%})."]
    if plan.correlation is not None:
        lines.append(
            f"On the pilot, the proxy's order and the judge's correlate by {plan.correlation:.2f} (1 is the same "
            "order, 0 chance): a better proxy saves more."
        )
    if not assumed and plan.thinning < 0.8 * plan.judged:
        lines.append(
            f"With --assume thinning it would be about {plan.thinning:,}; the guide says what is taken for granted "
            "then."
        )
    if budget is not None and plan.judged > budget:
        lines.append(f"That is more than the budget of {budget:,}: probably nothing could be certified.")
    return lines


def plan_facts(plan: RankPlan) -> dict[str, Any]:
    """What ``--plan --json`` prints."""
    return {
        "steps": [step._asdict() for step in plan.steps],
        "judged": plan.judged,
        "judged_if_thinning": plan.thinning,
        "everything": plan.everything._asdict(),
        "proxy_rank_correlation": plan.correlation,
    }


def _figures(step: PlannedStep) -> tuple[str, str, str]:
    return f"{step.rows:,}", duration(step.seconds), f"{step.tokens:,.0f}"
