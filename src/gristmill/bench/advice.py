"""What to use, and what it gains, in a sentence or two. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.bench.forecast import Forecast
from gristmill.bench.receipt import StrategyRecord
from gristmill.telemetry.progress import duration

#: Strategies whose rows see earlier rows.
_SEE_OTHERS = ("conversation", "keep-alive+context")


def span(found: Forecast) -> str:
    """With the interval, where there is one that is wide enough to be seen."""
    text = duration(found.seconds)
    if found.bound:
        return f"{found.bound} {text}"
    if found.low is None or found.high is None:
        return text
    low, high = duration(found.low), duration(found.high)
    if not found.low:
        # The rounds differ so much that the interval's lower end says nothing.
        return f"{text} (up to {high})"
    return text if low == high else f"{text} ({low} to {high})"


def too_few_rows(found: StrategyRecord) -> str:
    """Why a strategy that was measured has no time for the whole job, or only a bound."""
    if not sum(turn.rows - turn.failed for turn in found.turns):
        return "no row was answered"
    in_flight = max(turn.in_flight for turn in found.turns)
    if in_flight == 1:
        return f"too few rows to tell how long a long job takes: give it a file of at least {found.rows_for_forecast:,}"
    rows = min(turn.rows - turn.failed for turn in found.turns)
    return (
        f"with {rows:,} answered rows a turn and {in_flight:,} in flight, the engine was not full for long enough to "
        f"tell the speed of a long job: give it a file of at least {found.rows_for_forecast:,} rows"
    )


def advise(strategies: Sequence[StrategyRecord]) -> str:
    """Among the strategies that answered every row, and whose rows do not see one another, the fastest."""
    measured = [each for each in strategies if not each.missing]
    sound = [each for each in measured if not each.failed and each.name not in _SEE_OTHERS]
    if not measured:
        return "Nothing could be measured here: the table says why."
    if not sound:
        return "Every strategy failed on some rows: look at the errors in the receipt before anything else."
    # A long job's speeds among one another, or those of the turns as they were; never one against the other.
    steady = all(each.steady_rows_per_second is not None for each in sound)
    best = max(sound, key=lambda each: _speed(each, steady))
    text = f"Use {best.name}: "
    if best.forecast is not None:
        text += f"{best.forecast.rows:,} rows in {'' if best.forecast.bound else 'about '}{span(best.forecast)}"
    else:
        text += f"{best.rows_per_second:,.2f} rows/s on these rows"
    others = {each.name: each for each in sound if each is not best}
    usual = others.get("keep-alive") or others.get("baseline")
    if usual is not None and _speed(usual, steady) > 0:
        text += f", {_speed(best, steady) / _speed(usual, steady):,.1f} times as fast as {usual.name}"
    if best.drift is not None and best.drift.changed:
        text += f"; {best.drift.changed:.0%} of its answers differ from those of the same rows asked alone"
    drifting = [each for each in measured if each.name in _SEE_OTHERS]
    changed = [(each.name, each.drift.changed) for each in drifting if each.drift is not None and each.drift.changed]
    if changed:
        name, share = max(changed, key=lambda each: each[1])
        text += f"; {name} changes {share:.0%} of the answers, because rows see earlier ones"
    if not steady:
        rows = max(each.rows_for_forecast for each in sound)
        text += f". These rows are too few to tell the speed of a long job: give it a file of at least {rows:,}"
    return text + "."


def _speed(found: StrategyRecord, steady: bool) -> float:
    return found.steady_rows_per_second or 0.0 if steady else found.rows_per_second
