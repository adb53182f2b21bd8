"""Showing a ranking: the best rows, and what it would cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from gristmill.cli import show
from gristmill.printable import printable
from gristmill.scoring.rank.plan_words import plan_sentences
from gristmill.telemetry.progress import duration

if TYPE_CHECKING:
    from gristmill.scoring.rank.plan import PlannedStep, RankPlan
    from gristmill.scoring.rank.ranking import Ranked
    from gristmill.scoring.rank.wish import RankWish


def print_best(ranked: Ranked, ids: list[object]) -> None:
    table = Table(box=None, header_style="bold")
    compared = ranked.compared
    for title in ("rank", *(("tier",) if compared is not None else ()), "id", "score", "found by"):
        table.add_column(title, justify="left" if title in ("id", "found by") else "right")
    for place, (row, outcome, found) in enumerate(zip(ranked.rows, ranked.outcomes, ranked.found, strict=True), 1):
        score = "" if outcome.score is None else f"{outcome.score:.3f}"
        tier = () if compared is None else (str(compared.tier[place - 1] or ""),)
        table.add_row(f"{place:,}", *tier, printable(ids[row]), score, found)
    show.print_table(table)


def print_plan(plan: RankPlan, wish: RankWish) -> None:
    table = Table(box=None, header_style="bold")
    for title in ("step", "rows", "time", "tokens"):
        table.add_column(title, justify="left" if title == "step" else "right")
    for step in plan.steps:
        table.add_row(step.name + (" (done)" if step.done else ""), *_figures(step))
    table.add_row("")
    table.add_row(plan.everything.name, *_figures(plan.everything))
    show.print_table(table)
    for line in plan_sentences(plan, wish):
        show.console.print(line)


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
