"""What a ranking's plan comes to, in sentences. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gristmill.scoring.rank.plan import RankPlan
    from gristmill.scoring.rank.wish import RankWish


def plan_sentences(plan: RankPlan, wish: RankWish) -> list[str]:
    every = plan.everything.rows
    lines = [f"About {plan.judged:,} of {every:,} rows would be judged ({plan.judged / every:.0%})."]
    if plan.correlation is not None:
        lines.append(
            f"On the pilot, the proxy's order and the judge's correlate by {plan.correlation:.2f} (1 is the same "
            "order, 0 chance): a better proxy saves more."
        )
    if wish.assume is None and plan.thinning < 0.8 * plan.judged:
        lines.append(
            f"With the assumption thinning it would be about {plan.thinning:,}; the guide says what is taken for "
            "granted then."
        )
    if wish.budget is not None and plan.judged > wish.budget:
        then = "it would go on past it, as is wanted" if wish.or_all else "probably nothing could be certified"
        lines.append(f"That is more than the budget of {wish.budget:,}: {then}.")
    return lines
