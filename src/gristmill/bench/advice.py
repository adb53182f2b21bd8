"""One sentence: what to use, and what it gains. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.bench.forecast import Forecast
from gristmill.bench.receipt import StrategyRecord
from gristmill.telemetry.progress import duration


def span(found: Forecast) -> str:
    """With the interval, where there is one."""
    text = duration(found.seconds)
    if found.at_least:
        return f"at least {text}"
    if found.low is None or found.high is None:
        return text
    return f"{text} ({duration(found.low)} to {duration(found.high)})"


def advise(strategies: Sequence[StrategyRecord]) -> str:
    """Among the strategies that answered every row, and whose rows do not see one another, the fastest."""
    measured = [each for each in strategies if not each.missing]
    sound = [each for each in measured if not each.failed and each.name not in ("conversation", "keep-alive+context")]
    if not measured:
        return "Nothing could be measured here: the table says why."
    if not sound:
        return "Every strategy failed on some rows: look at the errors in the receipt before anything else."
    best = max(sound, key=lambda each: each.rows_per_second)
    assert best.forecast is not None  # it has answered rows
    text = f"Use {best.name}: {best.forecast.rows:,} rows in about {span(best.forecast)}"
    others = {each.name: each for each in sound if each is not best}
    if usual := others.get("keep-alive") or others.get("baseline"):
        text += f", {best.rows_per_second / usual.rows_per_second:.1f} times as fast as {usual.name}"
    drifting = [each for each in measured if each.name in ("conversation", "keep-alive+context")]
    changed = [(each.name, each.drift.changed) for each in drifting if each.drift is not None and each.drift.changed]
    if changed:
        name, share = max(changed, key=lambda each: each[1])
        text += f"; {name} changes {share:.0%} of the answers, because rows see earlier ones"
    return text + "."
