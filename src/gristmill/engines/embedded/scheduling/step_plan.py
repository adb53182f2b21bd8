"""A step: which sequences compute which tokens, what is done in the KV cache before, and what it may hold. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from gristmill.engines.embedded.prefix_files.prefix_store import Found
from gristmill.engines.embedded.scheduling.sequence import Sequence

#: Positions of a step whose logits are wanted, which are as many floats each as the vocabulary has tokens.
STEP_LOGITS = 256


class StepLimits(NamedTuple):
    """Tokens a step, sequences at a time (as many of the batch as interactive)."""

    step_tokens: int
    max_rows: int


#: Where nothing else has been asked for or measured.
DEFAULT_LIMITS = StepLimits(2048, 64)


class Chunk(NamedTuple):
    """Compute ``tokens`` tokens of ``sequence`` from ``start``; ``samples`` when they reach its last token."""

    sequence: Sequence
    start: int
    tokens: int
    samples: bool


class Begun(NamedTuple):
    """A sequence that has begun, perhaps again: its first ``matched`` tokens have KV state, and further ones are to be
    read from the disk where ``found`` is not None."""

    sequence: Sequence
    matched: int
    found: Found | None


class StepPlan(NamedTuple):
    """``moves`` are those of the KV memory, made in their order before the chunks are computed. What is to be read from
    the disk for those that have ``begun`` is read in between."""

    moves: list[Any]
    begun: list[Begun]
    chunks: list[Chunk]


class Budget:
    """What is left of a step: tokens to compute, and positions whose logits may be wanted."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self._logits = STEP_LOGITS

    def fit(self, sequence: Sequence, computed: int) -> int:
        """How many tokens of the sequence, ``computed`` of which have KV state, are computed in this step."""
        count = min(len(sequence.tokens) - computed, self.tokens)
        if sequence.first_wanted is None:
            return count
        return min(count, max(sequence.first_wanted - computed, 0) + self._logits)

    def spend(self, sequence: Sequence, computed: int, count: int) -> None:
        self.tokens -= count
        if sequence.first_wanted is not None:
            self._logits -= max(computed + count - max(sequence.first_wanted, computed), 0)

    def limit(self, tokens: int) -> None:
        self.tokens = min(self.tokens, tokens)
