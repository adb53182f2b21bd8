"""Measuring: the strategies in turn, round by round, each behind a prefix that no other has used.

Engines keep prefixes, so a strategy would find what the one before it has computed. Therefore every turn's prompts
begin with a line of their own ("Round 2, prefix."), the same for all its rows; a round's strategies get the same rows,
and every round other rows; ways that have many rows in flight get more of them, or there would never be many. The order
is turned by one from round to round, so that none is always first. What an answer owes to that line is no drift: the
rows that answers are compared with are asked alone behind the same line.

A turn's first row (in each slot) computes the shared prefix, which a long job does once: so the rate is that of the
rows after it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gristmill.bench.drift import Drift, drift
from gristmill.bench.forecast import forecast, pace
from gristmill.bench.receipt import StrategyRecord, TurnRecord
from gristmill.bench.rows import marked
from gristmill.bench.session import CountsLoads, Outcome, Turn
from gristmill.bench.strategies import Rows, Strategy, run_alone
from gristmill.dispatch.dispatcher import Dispatcher

#: Told about every turn that has ended: the strategy's name, the round (from 1), rows, seconds.
OnTurn = Callable[[str, int, int, float], None]


class Plan(NamedTuple):
    """Rows of a turn, for ways that send one at a time and for those that have many in flight."""

    rounds: int
    rows: int
    rows_at_once: int

    def of(self, number: int) -> slice:
        """Where the rows of a round are among all."""
        size = max(self.rows, self.rows_at_once)
        return slice(number * size, (number + 1) * size)


async def measure(
    dispatcher: Dispatcher,
    strategies: Sequence[Strategy],
    rows: Rows,
    plan: Plan,
    labels: list[str],
    job_rows: int,
    on_turn: OnTurn,
) -> list[StrategyRecord]:
    """``rows``: at least ``plan.rounds`` times the larger of its two sizes. ``job_rows``: how many to forecast."""
    missing = {each.name: each.missing(dispatcher.engine, labels) for each in strategies}
    usable = [each for each in strategies if not missing[each.name]]
    turns: dict[str, list[TurnRecord]] = {each.name: [] for each in usable}
    drifts: dict[str, Drift | None] = {}
    if not usable:
        return [StrategyRecord(each.name, each.about, missing=missing[each.name]) for each in strategies]
    # The first request of all may load the model or fill caches that have nothing to do with the prompt.
    await run_alone(Turn(dispatcher, labels), [marked(rows[0], "Warm-up.")])
    for number in range(plan.rounds):
        for strategy in usable[number % len(usable) :] + usable[: number % len(usable)]:
            size = plan.rows_at_once if strategy.at_once else plan.rows
            mine = [marked(row, f"Round {number + 1}, {strategy.name}.") for row in rows[plan.of(number)][:size]]
            outcomes, record = await _turn(dispatcher, strategy, mine, labels, number)
            turns[strategy.name].append(record)
            on_turn(strategy.name, number + 1, len(mine), record.seconds)
            if number == 0 and not strategy.independent:
                alone = Turn(dispatcher, labels)
                await run_alone(alone, mine[: plan.rows])
                drifts[strategy.name] = drift(outcomes, alone.outcomes)
    return [
        StrategyRecord(each.name, each.about, missing=missing[each.name])
        if missing[each.name]
        else summary(each, turns[each.name], drifts.get(each.name), job_rows)
        for each in strategies
    ]


async def _turn(
    dispatcher: Dispatcher, strategy: Strategy, rows: Rows, labels: list[str], number: int
) -> tuple[list[Outcome], TurnRecord]:
    engine = dispatcher.engine
    before = engine.loads if isinstance(engine, CountsLoads) else None
    turn = Turn(dispatcher, labels)
    started = time.perf_counter()
    await strategy.run(turn, rows)
    seconds = time.perf_counter() - started
    loads = engine.loads - before if isinstance(engine, CountsLoads) and before is not None else None
    # What the first rows in each slot computed, a long job computes once.
    skipped = max(1, min(dispatcher.window, len(rows) // 4)) if strategy.at_once else 1
    return turn.outcomes, _record(number + 1, turn.outcomes, seconds, loads, skipped)


def _record(number: int, outcomes: list[Outcome], seconds: float, loads: int | None, skipped: int) -> TurnRecord:
    answered = [each for each in outcomes if not each.error]
    cached = [each.cached_tokens for each in answered if each.cached_tokens is not None]
    return TurnRecord(
        round=number,
        rows=len(outcomes),
        failed=len(outcomes) - len(answered),
        seconds=round(seconds, 4),
        pace=pace(outcomes, skipped),
        prompt_tokens=sum(each.prompt_tokens for each in answered),
        cached_tokens=sum(cached) if len(cached) == len(answered) else None,
        output_tokens=sum(each.output_tokens for each in answered),
        without_number=sum(each.score is None for each in answered),
        loads=loads,
        errors=sorted({each.error for each in outcomes if each.error})[:5],
    )


def summary(strategy: Strategy, turns: list[TurnRecord], drifted: Drift | None, job_rows: int) -> StrategyRecord:
    """What the turns of one strategy come to. Token counts are per answered row."""
    # An engine that takes no time at all (the simulated one) must not divide by zero.
    paces = [turn.pace for turn in turns if turn.pace is not None]
    rates = [1 / max(pace.each, 1e-9) for pace in paces] or [0.0]
    answered = sum(turn.rows - turn.failed for turn in turns) or 1
    cached = [turn.cached_tokens for turn in turns if turn.cached_tokens is not None]
    loads = [turn.loads for turn in turns if turn.loads is not None]
    rate = statistics.median(rates)
    return StrategyRecord(
        strategy.name,
        strategy.about,
        rows_per_second=round(rate, 4),
        rows_per_second_range=(round(min(rates), 4), round(max(rates), 4)),
        seconds_per_row=round(1 / rate, 5) if rate else 0.0,
        prompt_tokens_per_row=round(sum(turn.prompt_tokens for turn in turns) / answered, 1),
        cached_tokens_per_row=round(sum(cached) / answered, 1) if len(cached) == len(turns) else None,
        output_tokens_per_row=round(sum(turn.output_tokens for turn in turns) / answered, 1),
        loads=sum(loads) if loads else None,
        failed=sum(turn.failed for turn in turns),
        drift=drifted,
        forecast=forecast(paces, job_rows, min(turn.rows for turn in turns) < strategy.full_after),
        turns=turns,
    )
