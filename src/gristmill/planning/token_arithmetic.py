"""How many prompt tokens an engine must compute for a job, by the way its rows are sent. Pure.

A KV cache is a prefix cache: what it can reuse of a prompt ends at the first token that differs from what it holds. All
formulas follow from that. They count prefill only; tokens already in the cache are left out, decoding is the same for
every way (though it takes longer behind a longer prompt).
"""

from __future__ import annotations

from typing import NamedTuple


class JobSize(NamedTuple):
    """Tokens of the shared prefix, of a row's own part and of an answer; how many rows; how many prefixes the engine
    keeps apart (its slots: each computes the shared prefix for itself, an engine with a shared cache counts as one);
    and how many turns a trimmed conversation keeps."""

    rows: int
    prefix_tokens: int
    row_tokens: int
    answer_tokens: int
    slots: int = 1
    turns: int = 50


class Bill(NamedTuple):
    """``longest_prompt``: tokens of the longest prompt, which with the answer must fit the context."""

    strategy: str
    computed_tokens: int
    longest_prompt: int


def bills(job: JobSize) -> list[Bill]:
    """One bill a strategy, the least first."""
    found = [_shared_prefix(job), _growing_conversation(job), _trimmed_conversation(job), _nothing_reused(job)]
    return sorted(found, key=lambda bill: bill.computed_tokens)


def _shared_prefix(job: JobSize) -> Bill:
    """R*P + N*c: every slot computes the prefix once, every row only its own part."""
    tokens = job.prefix_tokens * min(job.slots, job.rows) + job.rows * job.row_tokens
    return Bill("rows behind a shared prefix", tokens, job.prefix_tokens + job.row_tokens)


def _nothing_reused(job: JobSize) -> Bill:
    """N*(R + c)."""
    prompt = job.prefix_tokens + job.row_tokens
    return Bill("nothing reused", job.rows * prompt, prompt)


def _growing_conversation(job: JobSize) -> Bill:
    """R + N*c: answers are in the cache already. But the prompt grows with every row."""
    turn = job.row_tokens + job.answer_tokens
    longest = job.prefix_tokens + (job.rows - 1) * turn + job.row_tokens
    return Bill("one growing conversation", job.prefix_tokens + job.rows * job.row_tokens, longest)


def _trimmed_conversation(job: JobSize) -> Bill:
    """R + w*c + (N-w)*U with U = (w-1)(c+a) + c: once turns are dropped, all later ones stand elsewhere in the prompt,
    and every row computes the whole window again."""
    window = min(job.turns, job.rows)
    again = (window - 1) * (job.row_tokens + job.answer_tokens) + job.row_tokens
    tokens = job.prefix_tokens + window * job.row_tokens + (job.rows - window) * again
    return Bill(f"one conversation, last {job.turns} turns kept", tokens, job.prefix_tokens + again)
