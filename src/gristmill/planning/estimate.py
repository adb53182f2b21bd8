"""How long a job will take, from a few of its rows run for real. Pure."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from gristmill.planning.job_plan import JobPlan

#: How far off the pace of a pilot may be for a long run, as a share: half of a 90 % interval. Machines drift, and a
#: wave of a few rows is not the steady state. Measured (docs/explanation/planner.md).
_PACE_ERROR = 0.10
#: Standard normal at 0.95.
_Z = 1.645


class PilotRow(NamedTuple):
    """What one row of the pilot came to; ``cached_tokens`` is None where the engine does not report them."""

    line: int
    prompt_bytes: int
    prompt_tokens: int
    cached_tokens: int | None
    output_tokens: int


class Pilot(NamedTuple):
    """``leaders`` ran first and one by one, each computing the prefix of its group, for ``leader_seconds`` together;
    ``rows`` ran together behind them, for ``seconds``, without those that filled the slots. ``failed`` rows are in
    neither. Before all that, starting the engine took ``start_seconds``, with its model where that was not loaded."""

    leaders: Sequence[PilotRow]
    leader_seconds: float
    rows: Sequence[PilotRow]
    seconds: float
    failed: int = 0
    start_seconds: float = 0.0


class Estimate(NamedTuple):
    """Seconds for the whole job once the model is loaded, with the ends of a 90 % interval. Tokens are counted by the
    engine for the pilot's rows, and extrapolated. ``reused_share`` is of the pilot's rows behind their leaders."""

    seconds: float
    low: float
    high: float
    bytes_per_token: float
    output_tokens: int
    reused_share: float | None


def choose_rows(plan: JobPlan, count: int) -> tuple[list[int], list[int]]:
    """Lines to pilot: leaders, the first row of each outermost group that is met; and rows, evenly spread over the
    order to run in, so that every group and every length has its share."""
    step = max(len(plan.order) / count, 1.0)
    places = sorted({int((i + 0.5) * step) for i in range(count) if int((i + 0.5) * step) < len(plan.order)})
    met = sorted({group for place in places if (group := bisect_right(plan.group_ends, place)) < len(plan.group_ends)})
    firsts = [plan.group_ends[group - 1] if group else 0 for group in met]
    rows = [plan.order[place] for place in places if place not in set(firsts)]
    return [plan.order[place] for place in firsts], rows


def estimate(plan: JobPlan, pilot: Pilot) -> Estimate:
    """The job as the pilot, scaled: each outermost group once takes what a leader took, each other row what the rows
    behind the leaders took on average."""
    answered = [*pilot.leaders, *pilot.rows]
    timed = pilot.rows or pilot.leaders
    each = (pilot.seconds if pilot.rows else pilot.leader_seconds) / len(timed)
    leader = pilot.leader_seconds / len(pilot.leaders) if pilot.leaders else each
    groups = len(plan.group_ends)
    body = each * max(len(plan.order) - groups, 0)
    seconds = leader * groups + body
    work = [(row.prompt_tokens - (row.cached_tokens or 0)) + row.output_tokens for row in timed]
    spread = statistics.stdev(work) / statistics.mean(work) / math.sqrt(len(work)) if len(work) > 1 else 1.0
    error = math.hypot(_PACE_ERROR, _Z * spread)
    cached = [row.cached_tokens for row in timed if row.cached_tokens is not None]
    return Estimate(
        seconds,
        seconds * (1 - min(error, 1.0)),
        seconds * (1 + error),
        sum(row.prompt_bytes for row in answered) / max(sum(row.prompt_tokens for row in answered), 1),
        round(statistics.mean(row.output_tokens for row in answered) * plan.rows),
        sum(cached) / sum(row.prompt_tokens for row in timed) if len(cached) == len(timed) else None,
    )
