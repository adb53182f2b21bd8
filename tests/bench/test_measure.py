"""A whole bench on the simulated engine."""

from __future__ import annotations

import msgspec
from test_strategies import Watched, rows

from gristmill.bench.advice import advise, duration
from gristmill.bench.forecast import Forecast
from gristmill.bench.measure import Schedule, measure
from gristmill.bench.receipt import StrategyRecord
from gristmill.bench.strategies import STRATEGIES
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.errors import ErrorKind

LABELS = ["0", "5", "10"]


async def measured(engine: Watched, rounds: int = 2, count: int = 12) -> dict[str, StrategyRecord]:
    said = []
    found = await measure(
        Dispatcher(engine, window=1), STRATEGIES, rows(count), Schedule(rounds, count // rounds, 1000), LABELS,
        lambda *told: said.append(told),
    )  # fmt: skip
    assert len(said) == rounds * (len(STRATEGIES) - 1)
    return {each.name: each for each in found}


async def test_every_strategy_is_measured_or_says_why_not():
    found = await measured(Watched(prefill_speed=40_000))
    assert list(found) == [each.name for each in STRATEGIES]
    assert found.pop("keep-alive+context").missing == "only Ollama has the context parameter"
    for each in found.values():
        assert each.missing == ""
        assert each.forecast is not None
        assert [turn.rows for turn in each.turns] == ([8, 8] if each.name.startswith("prefix") else [6, 6])
        assert (each.forecast.bound == "at least") == (each.name == "conversation")
        assert each.failed == 0
        assert each.forecast.rows == 1000


async def test_no_strategy_finds_what_another_has_computed():
    # Its cache remembers everything.
    found = await measured(Watched(cached_prompts=1000))
    for name in ("keep-alive", "conversation", "prefix", "prefix+labels"):
        record = found[name]
        prompt = record.turns[0].prompt_tokens / record.turns[0].rows
        for turn in record.turns:
            # The first row of a turn computes everything but "system: Round ".
            assert turn.cached_tokens is not None
            assert turn.prompt_tokens - turn.cached_tokens >= prompt * 0.9, name
    assert found["baseline"].cached_tokens_per_row < 5


async def test_only_the_conversation_drifts():
    found = await measured(Watched(), rounds=2, count=40)
    assert found["prefix"].drift is not None
    assert found["prefix"].drift.changed == 0
    assert found["prefix"].drift.kendall_tau == 1.0
    # The simulated answer is a hash of the whole prompt.
    assert found["conversation"].drift is not None
    assert found["conversation"].drift.changed > 0.5
    assert found["baseline"].drift is None


async def test_failures_are_counted_by_strategy_with_their_text():
    found = await measured(Watched(fail_on="Candidate 4", failure_kind=ErrorKind.INVALID_REQUEST))
    assert found["prefix"].failed == 1
    assert found["prefix"].turns[0].errors == ["A simulated failure (invalid_request)."]


async def test_a_record_survives_its_file():
    found = await measured(Watched())
    for each in found.values():
        assert msgspec.json.decode(msgspec.json.encode(each), type=StrategyRecord) == each


def record(name: str, rate: float, failed: int = 0, changed: float | None = None) -> StrategyRecord:
    from gristmill.bench.drift import Drift

    apart = None if changed is None else Drift(10, 10, 1.0, 0.5, changed)
    seconds = 170_000 / rate
    return StrategyRecord(
        name, "", rows_per_second=rate, steady_rows_per_second=rate, failed=failed, drift=apart,
        forecast=Forecast(170_000, seconds, seconds * 0.9, seconds * 1.1),
    )  # fmt: skip


def test_the_advice_is_the_fastest_way_that_loses_no_row_and_shows_no_row_another():
    sentence = advise(
        [record("baseline", 0.1), record("keep-alive", 2), record("conversation", 90, changed=0.43),
         record("prefix", 8), record("prefix+labels", 20, failed=1)]
    )  # fmt: skip
    assert sentence == (
        "Use prefix: 170,000 rows in about 5.9 hours (5.3 hours to 6.5 hours), 4.0 times as fast as keep-alive; "
        "conversation changes 43% of the answers, because rows see earlier ones."
    )


async def test_where_no_way_can_be_used_the_reasons_are_the_result():
    (found,) = await measure(
        Dispatcher(Watched()), [s for s in STRATEGIES if s.name == "keep-alive+context"], rows(4), Schedule(1, 2, 1000),
        [], lambda *told: None,
    )  # fmt: skip
    assert "only Ollama" in found.missing
    assert "table" in advise([found])


async def test_a_way_that_fails_every_row_has_no_speed():
    found = await measured(Watched(fail_on="Candidate", failure_kind=ErrorKind.INVALID_REQUEST))
    assert found["prefix"].failed == 16
    assert found["prefix"].forecast is None
    assert "errors" in advise(list(found.values()))


def test_where_everything_fails_the_advice_is_to_look_at_the_errors():
    assert "errors" in advise([record("prefix", 3, failed=2)])


def test_durations_are_readable():
    assert [duration(s) for s in (0.25, 1, 59, 90, 3600, 86400, 20 * 86400)] == [
        "0.2 seconds", "1.0 second", "59 seconds", "1.5 minutes", "1.0 hour", "1.0 day", "20 days",
    ]  # fmt: skip


async def test_strategies_with_many_rows_in_flight_get_more_rows_and_are_compared_on_the_same():
    engine = Watched(slots=4)
    found = await measure(
        Dispatcher(engine), STRATEGIES, rows(40), Schedule(2, 5, 1000), LABELS, lambda *told: None
    )  # fmt: skip
    by_name = {each.name: each for each in found}
    assert [turn.rows for turn in by_name["keep-alive"].turns] == [5, 5]
    assert [turn.rows for turn in by_name["prefix"].turns] == [32, 32]
    assert by_name["prefix"].drift is not None
    assert by_name["prefix"].drift.rows == 5


def test_the_advice_says_where_the_fastest_way_gives_other_answers():
    sentence = advise([record("keep-alive", 2), record("prefix+labels", 20, changed=0.88)])
    assert "10.0 times as fast as keep-alive; 88% of its answers differ from those" in sentence


def test_speeds_of_turns_and_of_long_jobs_are_not_compared_with_one_another():
    few = msgspec.structs.replace(
        record("prefix", 40), steady_rows_per_second=None, forecast=None, rows_for_forecast=256
    )  # fmt: skip
    assert advise([record("keep-alive", 4), few]) == (
        "Use prefix: 40.00 rows/s on these rows, 10.0 times as fast as keep-alive. These rows are too few to tell the "
        "speed of a long job: give it a file of at least 256."
    )
