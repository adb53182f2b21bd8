"""What came of a ranking: as facts for a program, and as a page for people. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import gristmill
from gristmill.html_page import render, told_date
from gristmill.planning.token_bill import Prices
from gristmill.scoring.rank.compared_words import compared_sentences, not_compared
from gristmill.scoring.rank.ended import Certificate
from gristmill.scoring.rank.promise import About, judged_sentence, promise, saved_sentence
from gristmill.scoring.rank.ranking import Ranked
from gristmill.scoring.rank.wish import MOST_COMPARED
from gristmill.scoring.spent import Spent, spent_on

#: Rows of the list that the page shows.
_LISTED = 500


def sentences(about: About, ranked: Ranked) -> list[str]:
    """For a terminal, the headline first."""
    made = promise(about.goal, ranked.end, about.parties, ranked.compared is not None)
    told = [f"{made.headline}.", *made.promised, *made.assumed, *made.not_promised]
    told += [*truth_sentences(about, ranked), *round_sentences(about, ranked)]
    told.append(judged_sentence(about.goal, ranked.end.facts))
    saved = saved_sentence(about.goal, ranked.end.facts, spent_on(ranked.judge_batches), spent_on(ranked.proxy_batches))
    return [*told, saved] if saved else told


def round_sentences(about: About, ranked: Ranked) -> list[str]:
    """None where there were to be no rounds."""
    if about.rounds is None:
        return []
    if ranked.compared is None:
        return [not_compared(len(ranked.rows), MOST_COMPARED, isinstance(ranked.end, Certificate))]
    return compared_sentences(ranked.compared, about.parties.judge)


def truth_sentences(about: About, ranked: Ranked) -> list[str]:
    """None where there are no right scores."""
    goal, parties = about.goal, about.parties
    if ranked.truth is None or parties.truth is None:
        return []
    wanted = f"the best {goal.top:,}" if goal.top is not None else f"those with {parties.cut}"
    return ranked.truth.sentences(parties.truth, wanted, goal.rows, len(ranked.rows))


def certificate_facts(about: About, ranked: Ranked) -> dict[str, Any]:
    """The same whenever the same ranking is run on the same scores, but for ``cost``."""
    goal, end, parties = about.goal, ranked.end, about.parties
    facts = end.facts
    made = promise(goal, end, parties, ranked.compared is not None)
    certified = isinstance(end, Certificate)
    judge, proxy = spent_on(ranked.judge_batches), spent_on(ranked.proxy_batches)
    return {
        "certified": certified,
        "basis": end.basis.name.lower() if isinstance(end, Certificate) else None,
        "recall": end.recall if isinstance(end, Certificate) else None,
        "precision": end.precision if isinstance(end, Certificate) else None,
        "confidence": end.confidence if isinstance(end, Certificate) else goal.confidence,
        "would_cost": None if isinstance(end, Certificate) else end.would_cost,
        "least_without_assumption": None if isinstance(end, Certificate) else end.least,
        "headline": made.headline,
        "promised": made.promised,
        "assumed": made.assumed,
        "not_promised": made.not_promised,
        "goal": {
            "top": goal.top,
            "cut": parties.cut,
            "recall": goal.recall,
            "precision": goal.precision,
            "confidence": goal.confidence,
            "budget": goal.budget,
            "assume": goal.assume.name.lower() if goal.assume is not None else None,
            "seed": goal.seed,
        },
        "rows": goal.rows,
        "judged": sum(facts.judged.values()),
        "judged_by_step": {how.value: rows for how, rows in facts.judged.items()},
        "returned": len(ranked.rows),
        "returned_unjudged": len(end.accepted) if isinstance(end, Certificate) else 0,
        "failed": facts.failed,
        "audited": facts.audited,
        "audit_hits": facts.audit_hits,
        "may_miss": facts.may_miss,
        "most_left": facts.most_left,
        "assumption_free_recall": facts.assumption_free_recall,
        "log_wealth": facts.log_wealth if math.isfinite(facts.log_wealth) else None,
        "judge": parties.judge,
        "proxy": parties.proxy,
        "proxy_rank_correlation": ranked.correlation,
        "truth": None if ranked.truth is None else ranked.truth._asdict() | {"column": parties.truth},
        "rounds": _rounds(about, ranked),
        "asked": about.identity,
        "gristmill": gristmill.__version__,
        "cost": {
            "judge": judge._asdict(),
            "proxy": proxy._asdict() if proxy.rows else None,
            "rounds": spent_on(ranked.compared.batches)._asdict() if ranked.compared is not None else None,
            "not_judged": goal.rows - sum(facts.judged.values()),
        },
    }


def _rounds(about: About, ranked: Ranked) -> dict[str, Any] | None:
    if about.rounds is None:
        return None
    found = ranked.compared
    told = {"wanted": about.rounds, "sentences": round_sentences(about, ranked), "compared": found is not None}
    if found is None:
        return told
    return told | {
        "pairs": found.pairs,
        "answered": found.answered,
        "tiers": found.tiers,
        "confidence": found.confidence,
        "dispersion": found.dispersion,
        "position": found.position._asdict() if found.position is not None else None,
        "correlation_with_scores": found.likeness,
        "truth": found.truth._asdict() if found.truth is not None else None,
    }


def rank_page(
    about: About, ranked: Ranked, ids: Sequence[object], text_of: Callable[[int], str], prices: Prices
) -> str:
    """As HTML. ``ids`` of all rows of the table."""
    goal, facts = about.goal, ranked.end.facts
    judge, proxy = spent_on(ranked.judge_batches), spent_on(ranked.proxy_batches)
    total = sum(facts.judged.values())
    listed = [
        {
            "rank": place + 1,
            "id": str(ids[row]),
            "score": ranked.outcomes[place].score,
            "found": ranked.found[place],
            "text": text_of(row),
            "tier": ranked.compared.tier[place] if ranked.compared is not None else None,
            "strength": ranked.compared.strength[place] if ranked.compared is not None else None,
        }
        for place, row in enumerate(ranked.rows[:_LISTED])
    ]
    return render(
        "scoring/rank/rank.html.jinja",
        title=f"The best {goal.top:,} of {about.table}"
        if goal.top is not None
        else f"{about.parties.cut}: {about.table}",
        about={
            "judge": about.parties.judge,
            "proxy": about.parties.proxy,
            "correlation": ranked.correlation,
            "scale": about.instrument.scale.text,
            "rubric": about.instrument.rubric,
            "seed": goal.seed,
        },
        made_at=told_date(about.made_at),
        promise=promise(goal, ranked.end, about.parties, ranked.compared is not None),
        rounds=round_sentences(about, ranked),
        compared=ranked.compared is not None,
        in_tier=Counter(ranked.compared.tier) if ranked.compared is not None else {},
        certified=isinstance(ranked.end, Certificate),
        truth=truth_sentences(about, ranked),
        rows=goal.rows,
        returned=len(ranked.rows),
        judged=total,
        judged_share=total / goal.rows,
        judged_sentence=judged_sentence(goal, facts),
        saved=saved_sentence(goal, facts, judge, proxy),
        listed=listed,
        judge=_cost(judge, prices),
        proxy=_cost(proxy, prices),
        comparing=_cost(spent_on(ranked.compared.batches), prices) if ranked.compared is not None else None,
        price=prices.text,
    )


def _cost(spent: Spent, prices: Prices) -> dict[str, object]:
    cost = prices.cost(spent.prompt, spent.output)
    return spent._asdict() | {"cost": prices.told(cost) if cost is not None else None}
