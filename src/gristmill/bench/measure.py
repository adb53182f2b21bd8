"""Measuring: the strategies in turn, round by round, each behind a prefix that no other has used.

Engines keep prefixes, so a strategy would find what the one before it has computed. Therefore every turn's prompts
begin with a line of their own ("Round 2, prefix."), the same for all its rows; a round's strategies get the same rows,
and every round other rows, as long as there are any; strategies that have many rows in flight get more of them, or a
turn would show no steady pace. The order is turned by one from round to round, so that none is always first. What an
answer owes to that line is no drift: the rows that answers are compared with are asked alone behind the same line.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gristmill.bench.drift import Drift, drift
from gristmill.bench.forecast import LEAST_ROWS, WAVES, forecast, pace, upper_bound
from gristmill.bench.receipt import StrategyRecord, TurnRecord
from gristmill.bench.rows import marked
from gristmill.bench.session import RowResult, StrategyTurn
from gristmill.bench.strategies import Rows, Strategy, run_alone
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.protocol import CountsLoads

#: Told about every turn that has ended: the strategy's name, the round (from 1), rows, seconds.
OnTurn = Callable[[str, int, int, float], None]

#: Where few rows are in flight, each slot should answer this many in a turn: few waves would be few rows.
_FEW_SLOTS, _WAVES_OF_FEW = 16, 8
#: Rows of a turn at least, where how many rows pay in flight is yet to be found out.
_LEAST_TO_FIND_OUT = 256


class Schedule(NamedTuple):
    """How many rounds; rows of a turn, for strategies that send one at a time; rows of the job to forecast."""

    rounds: int
    rows: int
    job_rows: int


async def measure(
    dispatcher: Dispatcher,
    strategies: Sequence[Strategy],
    rows: Rows,
    schedule: Schedule,
    labels: list[str],
    on_turn: OnTurn,
) -> list[StrategyRecord]:
    """A record for each strategy. ``rows``: at least two; where they do not suffice, rounds share them."""
    missing = {each.name: each.missing(dispatcher.engine, labels) for each in strategies}
    usable = [each for each in strategies if not missing[each.name]]
    turns: dict[str, list[TurnRecord]] = {each.name: [] for each in usable}
    drifts: dict[str, Drift | None] = {}
    if not usable:
        return [StrategyRecord(each.name, each.about, missing=missing[each.name]) for each in strategies]
    # The first request of all may load the model or fill caches that have nothing to do with the prompt.
    await run_alone(StrategyTurn(dispatcher, labels), [marked(rows[0], "Warm-up.")])
    for number in range(schedule.rounds):
        for strategy in usable[number % len(usable) :] + usable[: number % len(usable)]:
            size = rows_in_flight(dispatcher, schedule.rows) if strategy.at_once else schedule.rows
            mark = f"Round {number + 1}, {strategy.name}."
            mine = [marked(row, mark) for row in _of_round(rows, number, schedule.rounds, size)]
            turn, record = await _turn(dispatcher, strategy, mine, labels, number)
            turns[strategy.name].append(record)
            on_turn(strategy.name, number + 1, len(mine), record.seconds)
            if number == 0 and not strategy.independent:
                alone = StrategyTurn(dispatcher, labels)
                await run_alone(alone, mine[: schedule.rows])
                drifts[strategy.name] = drift(turn.results, alone.results)
    return [
        StrategyRecord(each.name, each.about, missing=missing[each.name])
        if missing[each.name]
        else strategy_record(each, turns[each.name], drifts.get(each.name), schedule.job_rows)
        for each in strategies
    ]


def rows_in_flight(dispatcher: Dispatcher, least: int) -> int:
    """How many rows a turn should have that keeps the engine's window full: enough to see its pace."""
    limit = dispatcher.limit
    wanted = limit * (_WAVES_OF_FEW if limit <= _FEW_SLOTS else WAVES)
    return max(wanted, least, _LEAST_TO_FIND_OUT if dispatcher.finds_limit else 0)


def _of_round(rows: Rows, number: int, rounds: int, size: int) -> Rows:
    """Other rows in every round, or as far apart as the file allows. Meeting a row again behind another mark gains an
    engine nothing."""
    begin = number * max(size, len(rows) // rounds) % len(rows)
    return [*rows[begin:], *rows[:begin]][:size]


async def _turn(
    dispatcher: Dispatcher, strategy: Strategy, rows: Rows, labels: list[str], number: int
) -> tuple[StrategyTurn, TurnRecord]:
    engine = dispatcher.engine
    before = engine.loads if isinstance(engine, CountsLoads) else None
    turn = StrategyTurn(dispatcher, labels)
    await strategy.run(turn, rows)
    seconds = turn.now()
    loads = engine.loads - before if isinstance(engine, CountsLoads) and before is not None else None
    in_flight = dispatcher.limit if strategy.at_once else 1
    return turn, _record(number + 1, turn.results, seconds, loads, in_flight)


def _record(number: int, results: list[RowResult], seconds: float, loads: int | None, in_flight: int) -> TurnRecord:
    answered = [each for each in results if not each.error]
    cached = [each.cached_tokens for each in answered if each.cached_tokens is not None]
    return TurnRecord(
        round=number,
        rows=len(results),
        failed=len(results) - len(answered),
        seconds=round(seconds, 4),
        in_flight=in_flight,
        # A failure may take no time: it has no part in the pace.
        pace=pace([each.finished for each in answered], in_flight),
        prompt_tokens=sum(each.prompt_tokens for each in answered),
        cached_tokens=sum(cached) if len(cached) == len(answered) else None,
        output_tokens=sum(each.output_tokens for each in answered),
        without_number=sum(each.score is None for each in answered),
        loads=loads,
        errors=sorted({each.error for each in results if each.error})[:5],
    )


def strategy_record(
    strategy: Strategy, turns: list[TurnRecord], drifted: Drift | None, job_rows: int
) -> StrategyRecord:
    """What the turns of one strategy come to. Token counts are per answered row."""
    # An engine that takes no time at all (the simulated one) must not divide by zero.
    rates = [(turn.rows - turn.failed) / max(turn.seconds, 1e-9) for turn in turns]
    paces = [turn.pace for turn in turns]
    steady = [1 / max(each.each, 1e-9) for each in paces if each is not None]
    answered = sum(turn.rows - turn.failed for turn in turns) or 1
    cached = [turn.cached_tokens for turn in turns if turn.cached_tokens is not None]
    loads = [turn.loads for turn in turns if turn.loads is not None]
    expected = forecast(paces, job_rows, min(turn.rows for turn in turns) < strategy.full_after)
    bound = upper_bound([(turn.rows - turn.failed, turn.seconds, turn.in_flight) for turn in turns], job_rows)
    return StrategyRecord(
        strategy.name,
        strategy.about,
        rows_per_second=round(statistics.median(rates), 4),
        rows_per_second_range=(round(min(rates), 4), round(max(rates), 4)),
        steady_rows_per_second=round(statistics.median(steady), 4) if expected is not None else None,
        prompt_tokens_per_row=round(sum(turn.prompt_tokens for turn in turns) / answered, 1),
        cached_tokens_per_row=round(sum(cached) / answered, 1) if len(cached) == len(turns) else None,
        output_tokens_per_row=round(sum(turn.output_tokens for turn in turns) / answered, 1),
        loads=sum(loads) if loads else None,
        failed=sum(turn.failed for turn in turns),
        drift=drifted,
        forecast=expected or bound,
        rows_for_forecast=0 if expected is not None else max(WAVES * max(turn.in_flight for turn in turns), LEAST_ROWS),
        turns=turns,
    )
