"""What a ranking's plan comes to, in sentences. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gristmill.scoring.rank.plan import RankPlan


def plan_sentences(plan: RankPlan, budget: int | None, assumed: bool) -> list[str]:
    """``assumed``: whether thinning is."""
    every = plan.everything.rows
    lines = [f"About {plan.judged:,} of {every:,} rows would be judged ({plan.judged / every:.0%})."]
    if plan.correlation is not None:
        lines.append(
            f"On the pilot, the proxy's order and the judge's correlate by {plan.correlation:.2f} (1 is the same "
            "order, 0 chance): a better proxy saves more."
        )
    if not assumed and plan.thinning < 0.8 * plan.judged:
        lines.append(
            f"With the assumption thinning it would be about {plan.thinning:,}; the guide says what is taken for "
            "granted then."
        )
    if budget is not None and plan.judged > budget:
        lines.append(f"That is more than the budget of {budget:,}: probably nothing could be certified.")
    return lines
