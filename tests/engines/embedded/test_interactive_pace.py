"""What interactive requests wait for beside a batch, and what the batch loses: the scheduler and the pace of steps, in
simulated time, with the costs of steps on two cores (SmolLM2 135M)."""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

import pytest

from gristmill.engines.embedded.engine_loop import FEWEST_TOKENS, StepPace
from gristmill.engines.embedded.scheduler import Scheduler, StepLimits
from gristmill.engines.embedded.sequence import Sequence

STEP_TOKENS = 2048
#: Seconds: each step reads the model; then a token in prefill, and one of a row that decodes behind the rubric.
A_STEP, A_PREFILL_TOKEN, A_DECODING_ROW = 0.05, 0.0014, 0.0019


class Outcome(NamedTuple):
    """Of interactive requests, in order of length; and the batch's rows a second."""

    seconds: list[float]
    rows_per_second: float

    @property
    def p95(self) -> float:
        return self.seconds[int(0.95 * len(self.seconds))]


def simulate(in_flight: int, pause: float | None, output: int, seconds: float = 400) -> Outcome:
    """A batch of rows of 44 tokens behind a rubric of 1,696, ``in_flight`` at a time; and beside it requests of 50
    tokens, one after the other, with ``pause`` seconds between on average. Each gets ``output`` tokens."""
    scheduler = Scheduler(StepLimits(32, 1400, STEP_TOKENS, 64))
    pace, chance, tokens = StepPace(STEP_TOKENS), random.Random(7), itertools.count(10)
    left: dict[Sequence, int] = {}
    now, answered, found = 0.0, 0, list[float]()
    asked: Sequence | None = None
    next_at = chance.expovariate(1 / pause) if pause else seconds

    def new(prompt: list[int], interactive: bool) -> Sequence:
        sequence = Sequence(prompt, interactive=interactive)
        left[sequence] = output
        scheduler.add(sequence)
        return sequence

    while now < seconds:
        while sum(not each.interactive for each in left) < in_flight:
            new([1] * 1696 + list(itertools.islice(tokens, 44)), False)
        if asked is None and now >= next_at:
            asked = new(list(itertools.islice(tokens, 50)), True)
        if not left:
            now = next_at
            continue
        if scheduler.interactive:
            pace.asked(now)
        step = scheduler.plan(pace.tokens(now) if scheduler.sequences > 1 else None)
        decoding = sum(chunk.tokens == 1 for chunk in step.chunks)
        prefilled = sum(chunk.tokens for chunk in step.chunks) - decoding
        took = A_STEP + A_PREFILL_TOKEN * prefilled + A_DECODING_ROW * decoding
        now += took
        scheduler.advance(step)
        pace.note(prefilled + decoding, took)
        for sequence in [chunk.sequence for chunk in step.chunks if chunk.samples]:
            sequence.tokens.append(next(tokens))
            left[sequence] -= 1
            if left[sequence]:
                continue
            scheduler.remove(sequence)
            del left[sequence]
            if sequence is asked:
                found.append(now - next_at)
                asked, next_at = None, now + chance.expovariate(1 / (pause or 1))
            else:
                answered += 1
    return Outcome(sorted(found), answered / now)


@pytest.mark.parametrize("output", [4, 16])
def test_beside_a_batch_interactive_requests_take_less_than_three_times_as_long(output):
    alone = simulate(0, 5, output)
    beside = simulate(128, 5, output)
    assert len(beside.seconds) > 30
    assert beside.p95 < 3 * alone.p95


def test_the_batch_goes_on_beside_interactive_requests():
    # The requests' own tokens cost the batch something, too.
    assert simulate(128, 10, 16).rows_per_second > 0.88 * simulate(128, None, 16).rows_per_second


def test_steps_are_whole_until_somebody_asks_and_a_while_after():
    pace = StepPace(STEP_TOKENS)
    assert pace.tokens(0.0) == STEP_TOKENS
    pace.note(1000, 1.0)
    pace.asked(10.0)
    assert pace.tokens(11.0) == 400
    pace.note(1000, 1000.0)
    assert pace.tokens(12.0) == FEWEST_TOKENS
    assert pace.tokens(1000.0) == STEP_TOKENS
