"""How many rows at a time: the choice from measured times, and the measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.embedded.kv.forked_memory import Forget, Fork, ForkedMemory
from gristmill.engines.embedded.model_runner import EmbeddedOptions, LoadedModel, Span, StepCosts
from gristmill.engines.embedded.scheduling.out_of_room import OutOfRoom
from gristmill.engines.embedded.scheduling.step_abort import StepAbort
from gristmill.engines.embedded.scheduling.step_times import (
    SECONDS,
    keep_steps,
    kept_steps,
    measure_steps,
    settle_limits,
)
from gristmill.engines.embedded.scheduling.wave import StepTime, choose_wave

TOKENS = 100_000


class Machine:
    """Takes, in a time of its own, ``step`` seconds a step, ``token`` a token and ``cell`` a cell that a token's
    attention walks; and cannot compute more than ``most`` tokens at a time."""

    def __init__(self, step: float, token: float, cell: float, most: int = 10**6) -> None:
        self.costs, self.most = (step, token, cell), most
        self.now = 0.0
        self.steps = 0
        self._used: dict[int, int] = {}

    def clock(self) -> float:
        return self.now

    def new_memory(self) -> ForkedMemory:
        self._used = {}
        return ForkedMemory(20_000, 200)

    def make_moves(self, moves: list[Fork | Forget]) -> None:
        assert not any(isinstance(move, Fork) for move in moves)

    def forward(self, spans: list[Span[int]], abort: StepAbort) -> Any:
        tokens = sum(len(span.tokens) for span in spans)
        if tokens > self.most:
            raise OutOfRoom("it is full")
        self._used |= {span.place: span.past + len(span.tokens) for span in spans}
        step, token, cell = self.costs
        self.now += step + tokens * (token + sum(self._used.values()) * cell)
        self.steps += 1
        return np.zeros((sum(len(span.samples) for span in spans), 10), np.float32)


def chosen(step: float, token: float, cell: float, cells: int = 20_000) -> Any:
    machine = Machine(step, token, cell)
    return choose_wave(measure_steps(machine, TOKENS, clock=machine.clock), cells, 4096)


def test_rows_are_many_where_reading_the_model_takes_the_time_and_few_where_attention_does() -> None:
    # A GPU: a step takes as long whatever is in it. A CPU: a token takes as long as a step, and then cells count.
    gpu, cpu, small = chosen(0.02, 1e-5, 1e-10), chosen(0.005, 0.003, 1e-6), chosen(0.001, 0.001, 1e-6)
    assert gpu.rows >= 64
    assert 4 <= small.rows <= cpu.rows < gpu.rows
    assert small.rows <= 16


def test_cells_bound_the_rows() -> None:
    assert chosen(0.02, 1e-5, 1e-10, cells=1500).rows <= 12
    assert chosen(0.02, 1e-5, 1e-10, cells=100).rows == 4


@given(
    st.lists(
        st.tuples(st.integers(1, 64), st.integers(1, 8), st.integers(0, 1000), st.floats(0, 100)),
        min_size=2,
        max_size=9,
    )
)
def test_any_times_give_some_choice(times) -> None:
    measured = [StepTime(rows * each, rows, rows * each + beside, took) for rows, each, beside, took in times]
    needed = [StepTime(1, 1, 1, 0.1), StepTime(45, 1, 45, 0.5)]
    wave = choose_wave([*measured, *needed], 20_000, 4096)
    assert 4 <= wave.rows <= 96 and 256 <= wave.step_tokens <= 2048


@pytest.mark.parametrize("token", [1e-5, 1e-3, 0.03])
def test_measuring_takes_a_few_seconds_at_most(token: float) -> None:
    machine = Machine(10 * token, token, token / 4000)
    times = measure_steps(machine, TOKENS, clock=machine.clock)
    assert machine.now <= 1.5 * SECONDS
    # What attention costs is seen where there is time for it.
    assert any(each.cells > 512 and each.tokens < 512 for each in times) is (token < 0.01)


def test_a_very_slow_machine_measures_what_is_needed() -> None:
    machine = Machine(3.0, 0.5, 1e-4)
    times = measure_steps(machine, TOKENS, clock=machine.clock)
    assert [each.tokens for each in times] == [1, 4, 45]


def loaded(machine: Machine, key: str | None) -> LoadedModel:
    class Vocabulary:
        token_bytes = (b"a",) * TOKENS

    costs = None if key is None else StepCosts(key, 4096)
    return LoadedModel(machine, Vocabulary(), frozenset(), 2048, [], step_costs=costs)  # type: ignore[arg-type]


def measuring(**asked: int) -> EmbeddedOptions:
    return EmbeddedOptions(**({"max_rows": 0, "step_tokens": 0} | asked))


def test_what_was_measured_is_kept_and_what_is_asked_for_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    machine = Machine(1e-3, 1e-4, 1e-8)
    first = settle_limits(measuring(), loaded(machine, "one"))
    assert first.source is not None and first.source.startswith("measured in")
    steps = machine.steps
    again = settle_limits(measuring(), loaded(machine, "one"))
    assert again == (first.limits, "measured before")
    assert settle_limits(measuring(step_tokens=99), loaded(machine, "one")).limits == (99, first.limits.max_rows)
    assert settle_limits(measuring(max_rows=7), loaded(machine, "other")) == ((2048, 7), None)
    assert settle_limits(measuring(), loaded(machine, None)) == ((2048, 64), None)
    assert machine.steps == steps
    settle_limits(measuring(), loaded(machine, "other"))
    assert machine.steps == 2 * steps


def test_a_file_that_is_damaged_or_cannot_be_written_costs_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    keep_steps("one", [StepTime(1, 1, 1, 0.5)])
    assert kept_steps("one") == [StepTime(1, 1, 1, 0.5)]
    (file,) = (tmp_path / "cache" / "step-times").iterdir()
    file.write_bytes(b'[{"tokens": 1}]')
    assert kept_steps("one") is None
    monkeypatch.setenv("GRISTMILL_CACHE", str(file))
    keep_steps("one", [StepTime(1, 1, 1, 0.5)])
    assert kept_steps("one") is None


def test_without_room_to_measure_the_least_is_computed_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    limits, source = settle_limits(measuring(), loaded(Machine(1e-3, 1e-4, 1e-8, most=2), "one"))
    assert limits == (256, 4)
    assert source == "no room to measure more: it is full"
    # Some of it is enough to choose by.
    assert settle_limits(measuring(), loaded(Machine(1e-3, 1e-4, 1e-8, most=50), "one")).limits.max_rows >= 4
