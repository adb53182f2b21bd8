"""The time a whole job would take, from the turns that were measured."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
import simulated_time
from test_strategies import Watched, rows

from gristmill.bench.forecast import Pace, forecast, pace
from gristmill.bench.measure import Schedule, measure
from gristmill.bench.receipt import StrategyRecord
from gristmill.bench.session import StrategyTurn
from gristmill.bench.strategies import KEEP_ALIVE, PREFIX, STRATEGIES, Strategy
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.simulated import SimulatedEngine


class Batching(Watched):
    """Takes ``most`` requests at a time, whatever its window; the others wait. Rows take from nearly nothing to twice
    ``mean`` seconds, as their answers' lengths differ, where ``varied``."""

    def __init__(self, mean: float, most: int, varied: bool, **options) -> None:
        super().__init__(**options)
        self._mean, self._varied = mean, varied
        self._places = asyncio.Semaphore(most)

    async def complete(self, request, on_delta=None, *, interactive=False):
        async with self._places:
            share = hashlib.blake2b(request.messages[-1].text().encode()).digest()[0] / 127.5 if self._varied else 1.0
            await asyncio.sleep(self._mean * share)
            return await super().complete(request, on_delta)


async def bench(engine: SimulatedEngine, strategy: Strategy, count: int, job_rows: int) -> StrategyRecord:
    schedule = Schedule(3, min(16, count), job_rows)
    (found,) = await measure(Dispatcher(engine), [strategy], rows(count), schedule, [], lambda *told: None)
    return found


async def whole_run(engine: SimulatedEngine, strategy: Strategy, count: int) -> float:
    """Seconds of a job, from its first row's start to its last one's end."""
    turn = StrategyTurn(Dispatcher(engine), [])
    await strategy.run(turn, rows(count))
    assert not [each for each in turn.results if each.error]
    return turn.now()


ENGINES = {
    "one row at a time": lambda: Watched(latency=0.3, slots=8),
    "waves": lambda: Watched(latency=0.3, slots=64),
    "waves of another size than the window": lambda: Batching(1.0, 45, False, slots=64),
    "answers of many lengths": lambda: Batching(1.0, 64, True, slots=64),
    "lengths and a small batch": lambda: Batching(1.0, 24, True, slots=64),
    "few slots, each with a prefix to compute": lambda: Watched(prefill_speed=500, slots=4, cached_prompts=4),
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("job_rows", [1_000, 4_000])
def test_a_forecast_is_what_a_whole_run_then_takes(name: str, job_rows: int):
    make, strategy = ENGINES[name], KEEP_ALIVE if name == "one row at a time" else PREFIX
    found = simulated_time.run(bench(make(), strategy, 300, job_rows))
    took = simulated_time.run(whole_run(make(), strategy, job_rows))
    assert found.forecast is not None
    assert found.forecast.seconds == pytest.approx(took, rel=0.1)


@pytest.mark.parametrize("count", [2, 8, 30, 127])
@pytest.mark.parametrize("name", [each for each in ENGINES if "slots" not in each and "at a time" not in each])
def test_rows_that_never_fill_the_engine_for_long_forecast_nothing(name: str, count: int):
    found = simulated_time.run(bench(ENGINES[name](), PREFIX, count, 170_000))
    assert (found.forecast, found.steady_rows_per_second) == (None, None)
    assert found.rows_for_forecast == 256
    # And what is said of the rows that ran is what a calculator says.
    assert found.rows_per_second_range[0] * min(turn.seconds for turn in found.turns) <= count * 1.001
    assert [turn.rows for turn in found.turns] == [count] * 3


@pytest.mark.parametrize("count", [128, 200, 255])
@pytest.mark.parametrize("name", [each for each in ENGINES if "slots" not in each and "at a time" not in each])
def test_rows_that_fill_the_engine_a_short_time_give_a_bound(name: str, count: int):
    found = simulated_time.run(bench(ENGINES[name](), PREFIX, count, 4_000))
    took = simulated_time.run(whole_run(ENGINES[name](), PREFIX, 4_000))
    assert found.forecast is not None and found.forecast.bound == "at most"
    assert took <= found.forecast.seconds <= 2.5 * took


@pytest.mark.parametrize("count", [8, 30, 300])
def test_no_speed_is_more_than_the_engine_could_ever_reach(count: int):
    async def all_strategies() -> list[StrategyRecord]:
        engine = Watched(latency=0.3, slots=64)
        return await measure(
            Dispatcher(engine), STRATEGIES, rows(count), Schedule(3, min(16, count), 1000), ["0"], lambda *told: None
        )

    for each in simulated_time.run(all_strategies()):
        at_once = 64 if each.name.startswith("prefix") else 1
        assert each.rows_per_second <= at_once / 0.3 * 1.001
        assert (each.steady_rows_per_second or 0) <= at_once / 0.3 * 1.001


def test_a_steady_speed_gives_an_exact_forecast():
    found = forecast([Pace(3.0, 0.5, 1, 8)] * 3, 170_001)
    assert (found.rows, found.seconds, found.low, found.high) == (170_001, 85_003.0, 85_003.0, 85_003.0)


def test_the_prefix_is_paid_for_once():
    found = pace([10.0, *(10.0 + row for row in range(1, 9))], 1)
    assert found == Pace(10.0, 1.0, 1, 8)
    assert forecast([found], 1000).seconds == 10 + 999


def test_one_turn_gives_no_interval():
    found = forecast([Pace(1.0, 1.0, 1, 8)], 100)
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize("turns", [2, 3, 5, 20])
def test_nine_intervals_in_ten_hold_the_truth(turns):
    chosen = random.Random(turns)
    held = 0
    for _ in range(2000):
        found = forecast([Pace(0.0, chosen.gauss(1.0, 0.1), 1, 8) for _ in range(turns)], 1001)
        held += found.low <= 1000 <= found.high
    assert 0.87 <= held / 2000 <= 0.93


def test_too_few_rows_show_no_pace():
    assert pace([], 1) is None and pace([1.0], 1) is None
    assert pace([0.3] * 31, 8) is None and pace([0.3] * 31, 7) is not None
    assert forecast([], 1000) is None
    assert forecast([None, Pace(1.0, 1.0, 1, 100)], 1000) is None
    assert forecast([Pace(1.0, 1.0, 1, 2)] * 3, 1000) is None
