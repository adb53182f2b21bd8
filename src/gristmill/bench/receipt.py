"""What a bench writes down: every turn's raw numbers, and what they come to."""

from __future__ import annotations

import msgspec

from gristmill.bench.drift import Drift
from gristmill.bench.forecast import Forecast, Pace


class TurnRecord(msgspec.Struct, frozen=True):
    """One strategy in one round. ``cached_tokens`` is null where the engine does not report it, ``loads`` where it does
    not notice them. ``errors``: the failures' texts, each once,
    a few of them. ``pace`` is null where no row was answered."""

    round: int
    rows: int
    failed: int
    seconds: float
    pace: Pace | None
    prompt_tokens: int
    cached_tokens: int | None
    output_tokens: int
    without_number: int
    loads: int | None
    errors: list[str]


class StrategyRecord(msgspec.Struct, frozen=True):
    """``missing``: why it was not measured, and then nothing else is there. Rates are rows a second after the first
    row of a turn, medians over the rounds; ``drift`` is from the first round."""

    name: str
    about: str
    missing: str = ""
    rows_per_second: float = 0.0
    rows_per_second_range: tuple[float, float] = (0.0, 0.0)
    seconds_per_row: float = 0.0
    prompt_tokens_per_row: float = 0.0
    cached_tokens_per_row: float | None = None
    output_tokens_per_row: float = 0.0
    loads: int | None = None
    failed: int = 0
    drift: Drift | None = None
    forecast: Forecast | None = None
    turns: list[TurnRecord] = []


class Machine(msgspec.Struct, frozen=True):
    cpu: str
    cores: int
    memory_gb: float
    system: str


class Receipt(msgspec.Struct, frozen=True):
    """``rows`` and ``rows_at_once``: of one turn. ``options`` are the engine's as given; an API key is never one of
    them (it comes from the environment)."""

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
    rows_at_once: int
    labels: list[str]
    strategies: list[StrategyRecord]
    advice: str
