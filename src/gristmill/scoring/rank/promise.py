"""What a ranking promises, assumes and does not promise, in plain sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gristmill.scoring.prompt import Instrument
from gristmill.scoring.rank.ended import Basis, Certificate, Facts, NotCertified
from gristmill.scoring.rank.evidence import How
from gristmill.scoring.rank.goal import Goal
from gristmill.scoring.spent import Spent
from gristmill.telemetry.progress import duration


class Promise(NamedTuple):
    """``headline``: certified or not, in a few words. The others are sentences each."""

    headline: str
    promised: Sequence[str]
    assumed: Sequence[str]
    not_promised: Sequence[str]


class Parties(NamedTuple):
    """``judge`` and ``proxy`` in words; ``cut`` as it was given, None for the best K; ``truth``: the column of
    right scores."""

    judge: str
    proxy: str
    cut: str | None
    truth: str | None = None


class About(NamedTuple):
    """What was ranked how. ``made_at``: Unix time; ``identity``: what the ranking's folder was begun with;
    ``rounds`` of comparisons that were wanted."""

    table: str
    instrument: Instrument
    goal: Goal
    parties: Parties
    identity: dict[str, Any]
    made_at: float
    rounds: int | None = None


def promise(goal: Goal, end: Certificate | NotCertified, parties: Parties, compared: bool = False) -> Promise:
    """``compared``: whether the order of the list is that of rounds of comparisons."""
    not_promised = [
        f"All this is about agreement with the judge, {parties.judge}. Whether the judge is right is another question, "
        "which only right scores of some rows can answer."
    ]
    if end.facts.failed:
        not_promised.append(
            f"{end.facts.failed:,} rows got no score from the judge: they are in no list, and nothing is said of them."
        )
    if isinstance(end, NotCertified):
        return Promise("Not certified", _not_certified(goal, end, parties), [], not_promised)
    if end.basis is Basis.EVERYTHING:
        said = f"Every row was judged, so that nothing is estimated: {_all_found(goal, end.facts, parties)}."
        return Promise("Every row was judged", [said], [], not_promised)
    assumed = _assumed(goal, end, parties)
    return Promise(
        f"Certified with {_share(end.confidence)} confidence",
        _certified(goal, end, parties, compared),
        assumed,
        not_promised,
    )


def judged_sentence(goal: Goal, facts: Facts) -> str:
    parts = [f"{rows:,} {_KINDS[how]}" for how, rows in facts.judged.items() if rows]
    total = sum(facts.judged.values())
    if not total:
        return f"None of {goal.rows:,} rows was judged."
    return f"{total:,} of {goal.rows:,} rows were judged ({total / goal.rows:.1%}): {', '.join(parts)}."


def saved_sentence(goal: Goal, facts: Facts, judge: Spent, proxy: Spent) -> str:
    """By what the judged rows took; empty where all were judged."""
    total = sum(facts.judged.values())
    left = goal.rows - total
    if not left or not judge.rows:
        return ""
    times, tokens = judge.seconds / judge.rows * left, (judge.prompt + judge.output) / judge.rows * left
    own = (
        f" The proxy took {duration(proxy.seconds)} and {proxy.prompt + proxy.output:,} tokens of its own."
        if proxy.rows
        else ""
    )
    return (
        f"The {left:,} rows that were not judged would have taken about {duration(times)} and {tokens:,.0f} tokens "
        f"more.{own}"
    )


_KINDS = {
    How.PILOT: "drawn at random for the pilot",
    How.PROXY: "in the proxy's order",
    How.AUDIT: "drawn at random for the audit",
    How.ACCEPTED: "drawn at random from those that the proxy accepts",
    How.ALL: "as all that were left",
}


def _all_found(goal: Goal, facts: Facts, parties: Parties) -> str:
    found = len(facts.best)
    if goal.top is not None and found < goal.top:
        return f"no more than the {found:,} rows of this list got a score, of {goal.top:,} that were wanted"
    if not found:
        return f"of no row does the judge say {parties.cut}"
    return f"this list holds {_looked_for(goal, parties)}"


def _certified(goal: Goal, end: Certificate, parties: Parties, compared: bool) -> list[str]:
    sure = f"This is wrong in at most {_share(1 - end.confidence)} of such rankings."
    if goal.top is not None:
        least, asked = goal.top - end.facts.may_miss, f"if it were asked about all {goal.rows:,}"
        return [
            f"Of the {goal.top:,} rows that the judge would rank highest {asked}, at least {least:,} are in this list. "
            f"{sure}"
            if goal.top > 1
            else f"It is the row that the judge would rank highest {asked}. {sure}",
            "All rows of the list have been judged."
            if compared
            else "All rows of the list have been judged, so that their order is the judge's own.",
        ]
    said = [
        f"Of all rows of which the judge would say {parties.cut}, at least {_share(end.recall)} are in this list. "
        f"{sure}"
    ]
    if len(end.accepted):
        said.append(
            f"Of the rows of this list, the judge would say {parties.cut} of at least {_share(end.precision)}: "
            f"{len(end.accepted):,} of them were not judged, but accepted by the proxy. Both hold together."
        )
    else:
        said.append("All rows of the list have been judged.")
    return said


def _assumed(goal: Goal, end: Certificate, parties: Parties) -> list[str]:
    facts = end.facts
    drawn = f"{facts.audited:,} rows drawn at random from those that were not judged"
    hits = (
        f"{facts.audit_hits:,} of them belonged to the list"
        if facts.audit_hits
        else "none of them belonged to the list"
    )
    if end.basis is Basis.THINNING:
        assert goal.assume is not None
        chosen = (
            f"This holds if the assumption that was chosen (thinning) does: {goal.assume.value}. The confidence is "
            "that of counts that scatter about what is expected as chance has it (Poisson), at one look; that several "
            "looks keep to it has been measured, not proven."
        )
        if not facts.audited:
            return [
                chosen,
                "The pilot's rows, drawn at random, do not contradict it; without it they prove nothing.",
            ]
        return [
            chosen,
            f"It was looked whether that is contradicted: {drawn} were judged, and {hits}. Without the assumption, "
            f"that alone proves that at least {_share(facts.assumption_free_recall)} are in the list.",
        ]
    return [
        f"Nothing is assumed of the proxy ({parties.proxy}): a bad one would have cost more rows, not the promise. It "
        f"rests on chance alone: {drawn} were judged, and {hits}."
    ]


def _not_certified(goal: Goal, end: NotCertified, parties: Parties) -> list[str]:
    least = (
        f" With fewer than {end.least:,} no method can promise it without an assumption."
        if end.least and goal.assume is None
        else ""
    )
    shown = end.facts.assumption_free_recall
    has = (
        f"With {_share(goal.confidence)} confidence it has at least {_share(shown)} of {_looked_for(goal, parties)}."
        if shown
        else f"Nothing shows yet how many of {_looked_for(goal, parties)} it has."
    )
    more = end.would_cost > sum(end.facts.judged.values())
    return [
        f"{end.why} About {end.would_cost:,} judged rows would do, as far as can be told.{least}" if more else end.why,
        f"The list holds the best of the rows that were judged. {has}",
    ]


def _looked_for(goal: Goal, parties: Parties) -> str:
    if goal.top is not None:
        return f"the {goal.top:,} rows that the judge ranks highest" if goal.top > 1 else "the row it ranks highest"
    return f"the rows of which the judge says {parties.cut}"


def _share(value: float) -> str:
    """As a percentage that is not rounded up: 99.96 % is not 100 %."""
    return f"{value * 100:.3g} %" if value < 0.9995 or value == 1 else f"{value * 100:.6g} %"
