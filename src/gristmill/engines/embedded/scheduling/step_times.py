"""Measuring how long steps take, for a few seconds when a model is first used on a machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gristmill.engines.embedded.model_runner import EmbeddedOptions, LoadedModel, ModelRunner, Span
from gristmill.engines.embedded.scheduling.out_of_room import OutOfRoom
from gristmill.engines.embedded.scheduling.scheduler import Scheduler
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.scheduling.step_abort import StepAbort
from gristmill.engines.embedded.scheduling.step_plan import DEFAULT_LIMITS, StepLimits
from gristmill.engines.embedded.scheduling.wave import OWN_TOKENS, StepTime, choose_wave
from gristmill.models.cache import cache_folder, make_private

#: Seconds that measuring may take; a step that would take longer is left out.
SECONDS = 6.0
#: Rows, and tokens of each, of the steps that are measured; what is most needed comes first.
_STEPS = ((1, 1), (4, 1), (1, OWN_TOKENS), (16, 1), (8, 1), (3, OWN_TOKENS), (32, 1), (2, 1), (64, 1), (11, OWN_TOKENS))
#: Without these, what would be chosen is no better than a guess: they are measured whatever they take.
_NEEDED = 3
#: Cells that other steps are measured beside, to see what attention costs.
_BESIDE = 512
#: Where there is no room to measure.
_LEAST = StepLimits(256, 4)


class Settled(NamedTuple):
    """``source``: where the limits are from, where nobody has asked for them."""

    limits: StepLimits
    source: str | None


def settle_limits(options: EmbeddedOptions, model: LoadedModel) -> Settled:
    """What the options ask for; where they leave the rows open, what was measured, here and now or before."""
    if options.max_rows or model.step_costs is None:
        return Settled(_filled(options, DEFAULT_LIMITS), None)
    key, cells_a_token = model.step_costs
    times, source = kept_steps(key), "measured before"
    if times is None:
        begin = time.monotonic()
        try:
            times = measure_steps(model.runner, len(model.vocabulary.token_bytes))
        except OutOfRoom as error:
            return Settled(_filled(options, _LEAST), f"no room to measure more: {error}")
        keep_steps(key, times)
        source = f"measured in {time.monotonic() - begin:.1f} s"
    wave = choose_wave(times, model.runner.new_memory().tokens, cells_a_token)
    return Settled(_filled(options, StepLimits(wave.step_tokens, wave.rows)), source)


def _filled(options: EmbeddedOptions, limits: StepLimits) -> StepLimits:
    return StepLimits(options.step_tokens or limits.step_tokens, options.max_rows or limits.max_rows)


def measure_steps(
    runner: ModelRunner[Any, Any],
    vocabulary_size: int,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[StepTime]:
    """Leaves the KV cache in no particular state. Raises OutOfRoom where not even the smallest steps have room."""
    steps = _Steps(runner, vocabulary_size, clock)
    found: list[StepTime] = []
    begin = clock()
    for number, (rows, tokens) in enumerate(_STEPS):
        expected = found[-1].seconds * rows * tokens / found[-1].tokens if found else 0.0
        if number >= _NEEDED and clock() - begin + 2 * expected > seconds:
            continue
        try:
            found.append(steps.time(rows, tokens, 0))
        except OutOfRoom:
            if number < _NEEDED:
                raise
            break
    longest = max(found, key=lambda each: each.tokens)
    if clock() - begin + longest.seconds * _BESIDE / longest.tokens <= seconds:
        with contextlib.suppress(OutOfRoom):
            found += [steps.time(rows, tokens, _BESIDE) for rows, tokens in ((16, 1), (3, OWN_TOKENS))]
    return found


class _Steps:
    def __init__(self, runner: ModelRunner[Any, Any], vocabulary_size: int, clock: Callable[[], float]) -> None:
        self._runner = runner
        self._clock = clock
        self._random = random.Random(7)
        self._vocabulary_size = vocabulary_size

    def time(self, rows: int, tokens: int, beside: int) -> StepTime:
        """The faster of two: what a library sets up for the first step of a size is not part of it."""
        seconds = min(self._time(rows, tokens, beside) for _ in range(2))
        return StepTime(rows * tokens, rows, rows * tokens + beside, seconds)

    def _time(self, rows: int, tokens: int, beside: int) -> float:
        scheduler = Scheduler(DEFAULT_LIMITS, self._runner.new_memory())
        if beside:
            scheduler.add(self._sequence(beside))
            self._step(scheduler)
        for _ in range(rows):
            scheduler.add(self._sequence(tokens))
        return self._step(scheduler)

    def _sequence(self, tokens: int) -> Sequence:
        return Sequence([self._random.randrange(self._vocabulary_size) for _ in range(tokens)])

    def _step(self, scheduler: Scheduler) -> float:
        """Compute what there is to compute."""
        seconds = 0.0
        while any(each.pending for each in (*scheduler.running, *scheduler.waiting)):
            step = scheduler.plan()
            self._runner.make_moves(step.moves)
            spans = [
                Span(row.tokens[start : start + count], start, scheduler.memory.place(row), (count - 1,) * samples)
                for row, start, count, samples in step.chunks
            ]
            begin = self._clock()
            self._runner.forward(spans, StepAbort())
            seconds += self._clock() - begin
            scheduler.advance(step)
        return seconds


def kept_steps(key: str) -> list[StepTime] | None:
    """What was measured before with the same ``key``: all that the times depend on."""
    try:
        return msgspec.json.decode(_file(key).read_bytes(), type=list[StepTime]) or None
    except (OSError, msgspec.DecodeError):
        return None


def keep_steps(key: str, times: list[StepTime]) -> None:
    """Where the folder cannot be written to, they are measured again the next time."""
    file = _file(key)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        make_private(file.parent)
        new.write_bytes(msgspec.json.encode(times))
        new.replace(file)


def _file(key: str) -> Path:
    return cache_folder() / "step-times" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
