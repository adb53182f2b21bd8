"""Which inputs of which requests are embedded in the next step. Pure."""

from __future__ import annotations

from typing import NamedTuple

from gristmill.engines.embedded.embeddings.embedding import EmbeddingTask

#: Inputs that are looked at for a step, the oldest first: a request may have two thousand.
_WINDOW = 4096


class WaitingInput(NamedTuple):
    """Input ``place`` of a request."""

    task: EmbeddingTask
    place: int

    @property
    def tokens(self) -> list[int]:
        return self.task.inputs[self.place]


def next_inputs(waiting: list[WaitingInput], most_tokens: int, most_inputs: int, padded: bool) -> list[WaitingInput]:
    """The first of ``waiting`` always, and those that fit ``most_tokens`` with it. Interactive ones go before a
    batch's, and alone. ``padded``: each costs as much as the longest, so those of about the first one's length are
    taken."""
    urgent = [each for each in waiting if each.task.interactive]
    found = (urgent or waiting)[:_WINDOW]
    if not found:
        return []
    first, *others = found
    longest = total = size = len(first.tokens)
    if padded:
        # In the order in which they came where they are as near.
        others.sort(key=lambda each: abs(len(each.tokens) - size))
    taken = [first]
    for each in others[: most_inputs - 1]:
        longest, total = max(longest, len(each.tokens)), total + len(each.tokens)
        if (longest * (len(taken) + 1) if padded else total) > most_tokens:
            break
        taken.append(each)
    return taken
