"""What is said of a plan: the same for the terminal, as JSON and on the page. Pure."""

from __future__ import annotations

import msgspec

from gristmill.planning.estimate import Estimate, Pilot
from gristmill.planning.job_plan import JobPlan
from gristmill.planning.token_bill import (
    USUAL_BYTES_PER_TOKEN,
    GroupBill,
    Prices,
    TokenBill,
    group_bills,
    token_bill,
)


class PilotReport(msgspec.Struct, frozen=True):
    """``seconds`` for the whole job, with the ends of a 90 % interval; ``rows_per_second`` behind the leaders;
    ``start_seconds`` comes once more before, for the engine to load its model."""

    rows: int
    failed: int
    rows_per_second: float
    reused_share: float | None
    seconds: float
    low: float
    high: float
    start_seconds: float


class PlanReport(msgspec.Struct, frozen=True):
    """``token_source`` says where the token counts come from, ``bytes_per_token`` is
    null where all were counted; ``cost_avoided``: what the job would cost at a hosted API's
    prices, with every prompt token charged and as many output tokens as ``tokens`` has; null where no price was
    given."""

    rows: int
    duplicates: int
    in_line_order: bool
    token_source: str
    bytes_per_token: float | None
    tokens: TokenBill
    cost_avoided: float | None
    currency: str
    groups: list[GroupBill]
    pilot: PilotReport | None = None


def report(
    plan: JobPlan, prices: Prices, piloted: tuple[Pilot, Estimate] | None = None, tokenizer: str | None = None
) -> PlanReport:
    """``plan`` is in tokens, counted by ``tokenizer``, where that is given; else it is in bytes."""
    ratio, source, output = USUAL_BYTES_PER_TOKEN, f"estimated at {USUAL_BYTES_PER_TOKEN:g} bytes a token", None
    if piloted is not None:
        ratio, output = piloted[1].bytes_per_token, piloted[1].output_tokens
        source = f"extrapolated from the pilot, {ratio:.2f} bytes a token"
    if tokenizer is not None:
        ratio, source = 1.0, f"counted, every row, with the tokenizer of {tokenizer}"
    bill = token_bill(plan, ratio, output)
    return PlanReport(
        rows=plan.rows,
        duplicates=len(plan.duplicates.lines),
        in_line_order=plan.in_line_order,
        token_source=source,
        bytes_per_token=None if tokenizer else round(ratio, 3),
        tokens=bill,
        cost_avoided=prices.cost(bill.sent, bill.output or 0),
        currency=prices.currency,
        groups=group_bills(plan.groups, ratio),
        pilot=_pilot(*piloted) if piloted else None,
    )


def _pilot(pilot: Pilot, found: Estimate) -> PilotReport:
    timed, seconds = (pilot.rows, pilot.seconds) if pilot.rows else (pilot.leaders, pilot.leader_seconds)
    return PilotReport(
        rows=len(pilot.leaders) + len(pilot.rows),
        failed=pilot.failed,
        rows_per_second=round(len(timed) / max(seconds, 1e-9), 2),
        reused_share=None if found.reused_share is None else round(found.reused_share, 4),
        seconds=round(found.seconds, 1),
        low=round(found.low, 1),
        high=round(found.high, 1),
        start_seconds=round(pilot.start_seconds, 1),
    )
