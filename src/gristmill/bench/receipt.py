"""What a bench writes down: every turn's raw numbers, and what they come to."""

from __future__ import annotations

import msgspec

from gristmill.bench.drift import Drift
from gristmill.bench.forecast import Forecast, Pace


class TurnRecord(msgspec.Struct, frozen=True):
    """One strategy in one round: ``rows`` rows in ``seconds``, from the first one's start to the last one's end, at
    most ``in_flight`` at a time. ``cached_tokens`` is null where the engine does not report it, ``loads`` where it does
    not notice them. ``errors``: the failures' texts, each once, a few of them. ``pace`` is null where the turn had too
    few rows to show one."""

    round: int
    rows: int
    failed: int
    seconds: float
    in_flight: int
    pace: Pace | None
    prompt_tokens: int
    cached_tokens: int | None
    output_tokens: int
    without_number: int
    loads: int | None
    errors: list[str]


class StrategyRecord(msgspec.Struct, frozen=True):
    """``missing``: why it was not measured, and then nothing else is there. ``rows_per_second``: answered rows over the
    seconds of a whole turn, the median over the rounds, with the least and the most. ``steady_rows_per_second``: while
    the engine was full, which is a long job's speed. It is null where turns had too few rows to show it; a file of
    ``rows_for_forecast`` rows (else 0) would do, and ``forecast`` is a bound or null. ``drift`` is from the first
    round."""

    name: str
    about: str
    missing: str = ""
    rows_per_second: float = 0.0
    rows_per_second_range: tuple[float, float] = (0.0, 0.0)
    steady_rows_per_second: float | None = None
    prompt_tokens_per_row: float = 0.0
    cached_tokens_per_row: float | None = None
    output_tokens_per_row: float = 0.0
    loads: int | None = None
    failed: int = 0
    drift: Drift | None = None
    forecast: Forecast | None = None
    rows_for_forecast: int = 0
    turns: list[TurnRecord] = []


class Machine(msgspec.Struct, frozen=True):
    """What a bench was measured on, without names or addresses."""

    cpu: str
    cores: int
    memory_gb: float
    system: str


class BenchReceipt(msgspec.Struct, frozen=True):
    """``rows``: of one turn of a strategy that sends one row at a time; ``job_rows``: of the job that times are told
    for. ``options`` are the engine's as given; an API key is never one of them (it comes from the environment)."""

    measured_at: str
    gristmill: str
    machine: Machine
    engine: str
    model: str
    url: str | None
    options: dict[str, str]
    slots: int
    context_length: int | None
    rows_file: str
    rows_sha256: str
    rounds: int
    rows: int
    job_rows: int
    labels: list[str]
    strategies: list[StrategyRecord]
    advice: str
