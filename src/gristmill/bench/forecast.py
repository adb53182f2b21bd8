"""How long a whole job would take, from the turns that were measured. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

from gristmill.bench.session import Outcome

#: Student's t at 0.95, by degrees of freedom: nine of ten intervals hold the mean.
_T = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)
_T_MANY = 1.75


class Pace(msgspec.Struct, frozen=True):
    """``first``: seconds until ``skipped`` rows had an end, which pays for the shared prefix in every slot; ``each``:
    seconds a row after them."""

    first: float
    each: float
    skipped: int = 1


class Forecast(msgspec.Struct, frozen=True):
    """Seconds for ``rows`` rows, with the ends of a 90 % interval, which one turn alone does not give.

    ``at_least``: the rows measured were the cheap ones, as in a conversation that has not reached its full length.
    """

    rows: int
    seconds: float
    low: float | None
    high: float | None
    at_least: bool = False


def pace(outcomes: Sequence[Outcome], skipped: int = 1) -> Pace | None:
    """Of one turn, by its answered rows: a failure may take no time. With a single one, that is all there is to know;
    None where no row was answered."""
    ends = sorted(outcome.finished for outcome in outcomes if not outcome.error)
    if not ends:
        return None
    skipped = min(skipped, len(ends) - 1)
    if not skipped:
        return Pace(ends[0], ends[0])
    first = ends[skipped - 1]
    return Pace(first, (ends[-1] - first) / (len(ends) - skipped), skipped)


def forecast(paces: Sequence[Pace], rows: int, at_least: bool = False) -> Forecast | None:
    """Student's interval for the mean pace of turns like these. It says how sure the speed is if all rows are like
    those measured; not what else may happen in days of work. None without a pace."""
    if not paces:
        return None
    each = [pace.each for pace in paces]
    first, mean = statistics.mean(pace.first for pace in paces), statistics.mean(each)
    left = max(rows - max(pace.skipped for pace in paces), 0)
    total = first + mean * left
    if len(each) < 2:
        return Forecast(rows, round(total, 1), None, None, at_least)
    t = _T[len(each) - 2] if len(each) - 2 < len(_T) else _T_MANY
    margin = t * statistics.stdev(each) / math.sqrt(len(each)) * left
    return Forecast(rows, round(total, 1), round(max(total - margin, 0.0), 1), round(total + margin, 1), at_least)
