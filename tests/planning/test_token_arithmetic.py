"""The token bill of each way to send rows, against a prefix cache that is simulated token by token."""

from __future__ import annotations

import itertools

import pytest

from gristmill.planning.token_arithmetic import JobSize, bills

JOBS = [
    JobSize(rows=40, prefix_tokens=150, row_tokens=30, answer_tokens=5, turns=6),
    JobSize(rows=12, prefix_tokens=20, row_tokens=7, answer_tokens=3, turns=50),
    JobSize(rows=25, prefix_tokens=90, row_tokens=1, answer_tokens=1, turns=1),
    JobSize(rows=1, prefix_tokens=90, row_tokens=8, answer_tokens=2, turns=4),
]


def computed(prompts: list[list[str]], answers: list[list[str]], keep: bool = True) -> int:
    """Tokens one slot computes: all that differ from the start of what it holds, a prompt and its answer."""
    held: list[str] = []
    total = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(prompt, held, strict=False)))
        total += len(prompt) - (same if keep else 0)
        held = prompt + answer
    return total


def token_by_token(job: JobSize) -> dict[str, int]:
    rubric = [f"r{i}" for i in range(job.prefix_tokens)]
    rows = [[f"c{n}.{i}" for i in range(job.row_tokens)] for n in range(job.rows)]
    answers = [[f"a{n}.{i}" for i in range(job.answer_tokens)] for n in range(job.rows)]
    alone = [rubric + row for row in rows]

    def conversation(turns: int) -> list[list[str]]:
        prompts = []
        for n in range(job.rows):
            earlier = range(max(0, n - turns + 1), n)
            prompts.append(rubric + [t for k in earlier for t in rows[k] + answers[k]] + rows[n])
        return prompts

    return {
        "rows behind a shared prefix": computed(alone, answers),
        "nothing reused": computed(alone, answers, keep=False),
        "one growing conversation": computed(conversation(job.rows), answers),
        f"one conversation, last {job.turns} turns kept": computed(conversation(job.turns), answers),
    }


@pytest.mark.parametrize("job", JOBS)
def test_the_formulas_are_what_a_prefix_cache_does(job):
    expected = token_by_token(job)
    assert {bill.strategy: bill.computed_tokens for bill in bills(job)} == expected


def test_the_reference_example():
    # R=1500, c=300, a=50, w=50, N=1000: 0.30, 1.80 and 16.6 million tokens.
    found = {bill.strategy: bill for bill in bills(JobSize(1000, 1500, 300, 50))}
    assert found["rows behind a shared prefix"].computed_tokens == 301_500
    assert found["nothing reused"].computed_tokens == 1_800_000
    trimmed = found["one conversation, last 50 turns kept"]
    assert trimmed.computed_tokens == 1_500 + 50 * 300 + 950 * (49 * 350 + 300)
    assert trimmed.longest_prompt == 1_500 + 49 * 350 + 300


def test_every_slot_computes_the_prefix_once_and_never_more_slots_than_rows():
    assert bills(JobSize(100, 1000, 10, 1, slots=4))[0].computed_tokens == 100 * 10 + 1000  # a growing conversation
    found = {bill.strategy: bill.computed_tokens for bill in bills(JobSize(2, 1000, 10, 1, slots=4))}
    assert found["rows behind a shared prefix"] == 2 * 1000 + 2 * 10


def test_the_least_comes_first():
    found = [bill.computed_tokens for bill in bills(JobSize(1000, 1500, 300, 50))]
    assert found == sorted(found)
