"""What a ranking does next, in a sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gristmill.scoring.rank.evidence import How, Judge

_TOLD: Mapping[How, str] = {
    How.PILOT: "drawn at random, before anything is known (the pilot)",
    How.PROXY: "the next in the proxy's order",
    How.AUDIT: "drawn at random from those not judged, to see what the proxy overlooks (the audit)",
    How.ACCEPTED: "drawn at random from those the proxy accepts, to see whether it is right (the audit)",
    How.ALL: "all that are left",
}


def step_sentence(step: Judge, number: int) -> str:
    if number == 0 and step.how is How.ALL:
        return (
            f"Every one of the {len(step.rows):,} rows is judged: with so few rows, or so few that may be missed, "
            "nothing less can promise this. A lower recall, or more of the best, may need fewer."
        )
    return f"Step {number + 1}: {len(step.rows):,} rows are judged, {_TOLD[step.how]}."
