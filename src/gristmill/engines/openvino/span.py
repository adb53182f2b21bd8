"""A piece of one sequence that a step computes."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """``tokens`` that come after ``past`` others, in ``blocks`` (those of the past first).

    ``samples`` lists the offsets within ``tokens`` whose next-token logits are wanted.
    """

    tokens: list[int]
    past: int
    blocks: list[int]
    samples: tuple[int, ...]
