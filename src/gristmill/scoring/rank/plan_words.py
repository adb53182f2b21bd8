"""What a ranking's plan comes to, in sentences. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gristmill.scoring.rank.plan import RankPlan
    from gristmill.scoring.rank.wish import RankWish

#: A proxy whose order correlates with the judge's by more leaves little to be saved.
_GOOD = 0.9


def plan_sentences(plan: RankPlan, wish: RankWish) -> list[str]:
    every = plan.everything.rows
    nothing = ", which saves nothing" if plan.judged >= every else ""
    lines = [f"About {plan.judged:,} of {every:,} rows would be judged ({plan.judged / every:.0%}){nothing}."]
    if plan.correlation is not None:
        better = ": a better proxy saves more" if plan.correlation < _GOOD else ""
        lines.append(
            f"On the pilot, the proxy's order and the judge's correlate by {plan.correlation:.2f} (1 is the same "
            f"order, 0 chance){better}."
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
