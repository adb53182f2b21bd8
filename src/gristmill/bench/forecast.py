"""How long a whole job would take, from the turns that were measured. Pure.

The first rows of a turn fill the engine and the last ones drain it; a long job does both once. Its pace is that of the
rows between, and it can only be seen where there are enough of them: rows that fit into one wave end together, and the
time between their ends says nothing about the next wave.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

#: A turn shows a pace from this many times as many rows as are in flight: a wave that fills, one that drains, and two
#: between them that are compared.
WAVES = 4
#: With one row in flight, rows of all turns together after which a time for the whole job is given.
LEAST_ROWS = 8
#: Student's t at 0.95, by degrees of freedom: nine of ten intervals hold the mean.
_T = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)
_T_MANY = 1.75


class Pace(msgspec.Struct, frozen=True):
    """``first``: seconds until ``skipped`` rows had ended, which filled the engine and computed the shared prompt in
    each of its slots; ``each``: seconds a row after them, while as many rows were in flight as may be. ``rows``: how
    many rows that was measured over."""

    first: float
    each: float
    skipped: int
    rows: int


class Forecast(msgspec.Struct, frozen=True):
    """Seconds for ``rows`` rows, with the ends of a 90 % interval, which one turn alone does not give.

    ``bound``: "at least" where the rows measured were the cheap ones, as in a conversation that has not reached its
    full length; "at most" where the engine was full for too short a time, so that filling and draining it weigh more
    than they will.
    """

    rows: int
    seconds: float
    low: float | None = None
    high: float | None = None
    bound: Literal["", "at least", "at most"] = ""


def pace(ends: Sequence[float], in_flight: int) -> Pace | None:
    """``ends``: when each answered row of one turn ended, in seconds since the turn began, in any order; ``in_flight``:
    how many rows were asked at a time. None where there are too few rows.

    With many rows in flight, the mean end of one wave of rows is compared with that of a later one: rows that end
    together, in waves of whatever size the engine makes of them, count by their time and not by where a wave is cut.
    The first wave (it fills the engine) and the last one (it drains it) are left out.
    """
    ordered = sorted(ends)
    count = len(ordered)
    if in_flight == 1:
        if count < 2:
            return None
        return Pace(ordered[0], (ordered[-1] - ordered[0]) / (count - 1), 1, count - 1)
    if count < WAVES * in_flight:
        return None
    early = statistics.fmean(ordered[in_flight : 2 * in_flight])
    late = statistics.fmean(ordered[count - 2 * in_flight : count - in_flight])
    rows = count - 3 * in_flight
    return Pace(early, (late - early) / rows, in_flight + in_flight // 2, rows)


def forecast(paces: Sequence[Pace | None], rows: int, cheap: bool = False) -> Forecast | None:
    """Student's interval for the mean pace of turns like these. It says how sure the speed is if all rows are like
    those measured; not what else may happen in days of work. ``cheap``: later rows cost more than these. None where a
    turn was too small to show its pace."""
    known = [pace for pace in paces if pace is not None]
    if not known or len(known) < len(paces) or sum(pace.rows for pace in known) < LEAST_ROWS:
        return None
    each = [pace.each for pace in known]
    first, mean = statistics.fmean(pace.first for pace in known), statistics.fmean(each)
    left = max(rows - max(pace.skipped for pace in known), 0)
    total = first + mean * left
    bound: Literal["", "at least"] = "at least" if cheap else ""
    if len(each) < 2:
        return Forecast(rows, round(total, 1), bound=bound)
    t = _T[len(each) - 2] if len(each) - 2 < len(_T) else _T_MANY
    margin = t * statistics.stdev(each) / math.sqrt(len(each)) * left
    return Forecast(rows, round(total, 1), round(max(total - margin, 0.0), 1), round(total + margin, 1), bound)


def upper_bound(turns: Sequence[tuple[int, float, int]], rows: int) -> Forecast | None:
    """Where ``forecast`` gives nothing: the job at the speed of the slowest whole turn. ``turns``: answered rows,
    seconds, rows in flight. None where the rows did not fill the engine twice over: such a bound would be far off."""
    if not turns or any(answered < 2 * in_flight or in_flight == 1 for answered, _, in_flight in turns):
        return None
    return Forecast(rows, round(rows * max(seconds / answered for answered, seconds, _ in turns), 1), bound="at most")
