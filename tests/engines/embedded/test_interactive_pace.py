"""What interactive requests wait for beside a batch, and what the batch loses: the scheduler and the pace of steps, in
simulated time, with the costs of steps measured on two cores (SmolLM2 135M, f16)."""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

import pytest

from gristmill.engines.embedded.kv.paged_memory import PagedMemory
from gristmill.engines.embedded.scheduling.scheduler import Scheduler
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.scheduling.step_pace import (
    EXPECTED_SECONDS,
    FEWEST_TOKENS,
    LONGEST_WAIT,
    STEP_SECONDS,
    StepPace,
)
from gristmill.engines.embedded.scheduling.step_plan import StepLimits, StepPlan

STEP_TOKENS = 2048
#: Tokens of a small step, and its seconds; a step of rows that decode goes on like that.
SMALL = (
    (0, 0.031),
    (1, 0.0336),
    (5, 0.041),
    (9, 0.051),
    (17, 0.059),
    (25, 0.072),
    (33, 0.0856),
    (48, 0.107),
    (64, 0.134),
)
#: Seconds of a larger one: each reads the model; then a token in prefill, and one of a row that decodes.
A_STEP, A_PREFILL_TOKEN, A_DECODING_ROW = 0.05, 0.00115, 0.00145
#: From ``ask`` to the end of an aborted step, in seconds.
AN_ABORT = 0.03


def seconds_of(step: StepPlan) -> float:
    tokens = sum(chunk.tokens for chunk in step.chunks)
    for (fewer, faster), (more, slower) in itertools.pairwise(SMALL):
        if tokens <= more:
            return faster + (slower - faster) * (tokens - fewer) / (more - fewer)
    decoding = sum(chunk.tokens == 1 for chunk in step.chunks)
    return A_STEP + A_PREFILL_TOKEN * (tokens - decoding) + A_DECODING_ROW * decoding


class Outcome(NamedTuple):
    """Of interactive requests, in order of length; and the batch's rows a second, and aborted steps."""

    seconds: list[float]
    rows_per_second: float
    aborted: int

    @property
    def p95(self) -> float:
        return self.seconds[int(0.95 * len(self.seconds))]


class Simulation:
    """A batch of rows of ``own`` tokens behind a rubric of 1,696, ``in_flight`` at a time; and beside it requests of 28
    tokens, one after the other, with ``pause`` seconds between on average. Each row gets up to 16 tokens, each request
    ``output``."""

    def __init__(self, in_flight: int, pause: float | None, output: int, own: int = 60) -> None:
        self.scheduler = Scheduler(StepLimits(STEP_TOKENS, 64), PagedMemory(32, 1400))
        self.pace = StepPace(STEP_TOKENS)
        self.now = 0.0
        self.answered = self.aborted = 0
        self.found: list[float] = []
        self._in_flight, self._pause, self._output, self._own = in_flight, pause, output, own
        self._chance, self._tokens = random.Random(7), itertools.count(10)
        self._left: dict[Sequence, int] = {}
        self._asked: Sequence | None = None
        self._next_at = self._draw_next()

    def _draw_next(self) -> float:
        return self.now + self._chance.uniform(0.5, 1.5) * self._pause if self._pause else float("inf")

    def _add(self, prompt: list[int], output: int, interactive: bool) -> Sequence:
        sequence = Sequence(prompt, interactive=interactive)
        self._left[sequence] = output
        self.scheduler.add(sequence)
        return sequence

    def run(self, seconds: float) -> Outcome:
        while self.now < seconds:
            while sum(not each.interactive for each in self._left) < self._in_flight:
                prompt = [1] * 1696 + list(itertools.islice(self._tokens, self._own))
                self._add(prompt, min(16, self._chance.randint(8, 24)), False)
            if self._asked is None and self.now >= self._next_at:
                self._asked = self._add(list(itertools.islice(self._tokens, 28)), self._output, True)
            if self._left:
                self._step()
            else:
                self.now = self._next_at
        return Outcome(sorted(self.found), self.answered / self.now, self.aborted)

    def _step(self) -> None:
        interactive = self.scheduler.interactive
        if interactive:
            self.pace.asked(self.now)
        step = self.scheduler.plan(self.pace.tokens(self.now) if self.scheduler.sequences > 1 else None)
        tokens, took = sum(chunk.tokens for chunk in step.chunks), seconds_of(step)
        comes = not interactive and self.now < self._next_at < self.now + took - AN_ABORT
        if comes and self.pace.worth_aborting(tokens, self._next_at - self.now):
            self.now = self._next_at + AN_ABORT
            self.pace.aborted()
            self.scheduler.abort(step)
            self.aborted += 1
            return
        self.now += took
        self.scheduler.advance(step)
        self.pace.computed(tokens, took, interactive)
        for sequence in [chunk.sequence for chunk in step.chunks if chunk.samples]:
            sequence.tokens.append(next(self._tokens))
            self._left[sequence] -= 1
            if not self._left[sequence]:
                self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        del self._left[sequence]
        if sequence is self._asked:
            self.found.append(self.now - self._next_at)
            self._asked, self._next_at = None, self._draw_next()
        else:
            self.answered += 1


def simulate(in_flight: int, pause: float | None, output: int, seconds: float = 400, own: int = 60) -> Outcome:
    return Simulation(in_flight, pause, output, own).run(seconds)


def test_beside_a_batch_interactive_requests_take_less_than_three_times_as_long_and_the_batch_loses_their_work_only():
    idle, alone, beside = simulate(0, 8, 16), simulate(128, None, 16, 800), simulate(128, 8, 16, 800)
    assert len(beside.seconds) > 80
    assert beside.p95 < 2.6 * idle.p95
    pace = beside.rows_per_second / alone.rows_per_second
    assert pace > 0.93
    # What the requests would have computed alone is not the batch's to have.
    own = sum(idle.seconds) / len(idle.seconds) * len(beside.seconds) / 800
    assert pace > 0.99 * (1 - own)


def test_who_asks_after_a_while_does_not_wait_for_a_whole_step():
    # Rows that share little with one another fill every step, of three seconds.
    idle, beside = simulate(0, 100, 16, 1600), simulate(128, 100, 16, 1600, own=600)
    assert beside.aborted > 5
    assert beside.p95 < 2.6 * idle.p95


@pytest.mark.parametrize("output", [1, 4])
def test_short_answers_wait_no_longer_than_long_ones(output):
    idle, beside = simulate(0, 5, output), simulate(128, 5, output)
    assert beside.p95 < 2 * idle.p95 + LONGEST_WAIT + 2 * AN_ABORT


def test_steps_are_whole_until_somebody_asks_and_a_while_after():
    pace = StepPace(STEP_TOKENS)
    assert pace.tokens(0.0) == STEP_TOKENS
    pace.computed(1000, 2.0, False)
    pace.asked(10.0)
    assert pace.tokens(11.0) == STEP_SECONDS * 500
    pace.computed(1000, 1000.0, False)
    assert pace.tokens(12.0) == FEWEST_TOKENS
    assert pace.tokens(11.0 + EXPECTED_SECONDS) == STEP_TOKENS


def test_a_step_is_aborted_where_much_of_it_is_left():
    pace = StepPace(STEP_TOKENS)
    # Nothing is known of its length.
    assert pace.worth_aborting(STEP_TOKENS, 0.1)
    pace.computed(1000, 1.0, False)
    assert pace.worth_aborting(1000, 0.99 - LONGEST_WAIT)
    assert not pace.worth_aborting(1000, 1.01 - LONGEST_WAIT)
    assert not pace.worth_aborting(1000, 5.0)
    assert not pace.worth_aborting(FEWEST_TOKENS - 1, 0.0)


def test_no_two_steps_in_a_row_are_aborted_so_that_the_batch_goes_on():
    pace = StepPace(STEP_TOKENS)
    pace.computed(1000, 1.0, False)
    pace.aborted()
    assert not pace.worth_aborting(1000, 0.0)
    pace.computed(20, 0.1, True)
    assert not pace.worth_aborting(1000, 0.0)
    pace.computed(1000, 1.0, False)
    assert pace.worth_aborting(1000, 0.0)
