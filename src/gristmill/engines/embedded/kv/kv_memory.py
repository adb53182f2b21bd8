"""Which sequences have KV state where: what the scheduler asks, whatever a library's KV cache is like."""

from __future__ import annotations

from typing import Protocol, TypeVar

from gristmill.engines.embedded.scheduling.sequence import Sequence

#: Where the KV state of a sequence is: what a ``ModelRunner`` needs to know to read and write it.
Place = TypeVar("Place")
Place_co = TypeVar("Place_co", covariant=True)
#: What the ``ModelRunner`` does in its KV cache before a step.
Move = TypeVar("Move")


class KvMemory(Protocol[Place_co, Move]):
    """The account of a KV cache: which sequences hold how much of it, and what may be used again. Pure: what is to be
    done in the cache itself is collected as moves.

    A sequence holds nothing until ``begin``, and nothing after ``release``; what it had computed may stay for others.
    """

    #: Tokens that a sequence has room for when it is alone.
    tokens: int
    #: The fewest tokens that are worth waiting for while another sequence computes them.
    grain: int
    #: Whether others can begin with any part of what a sequence has computed; else only with what was kept by ``keep``,
    #: and with the whole of it.
    partial: bool

    def match(self, sequence: Sequence) -> int:
        """How many of the sequence's first tokens, ``sequence.reusable`` at most, have KV state that it could use."""
        ...

    def shared_at(self, running: Sequence, common: int) -> int:
        """How many tokens ``running`` must have computed before its first ``common`` can be used by another."""
        ...

    def begin(self, sequence: Sequence, tokens: int) -> bool:
        """Take hold of what ``match`` finds, and of room up to the first ``tokens`` tokens. Leaves running sequences
        enough to go on, or admission and preemption would chase each other. False, and nothing is held, where there is
        too little; then ``match`` may find less than before. Never false when no sequence holds anything."""
        ...

    def reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Room up to the first ``tokens`` tokens of one that has begun. False where there is too little."""
        ...

    def note_computed(self, sequence: Sequence) -> None:
        """``sequence.computed`` has grown: so many of its tokens have KV state."""
        ...

    def parts_at(self, sequence: Sequence) -> int:
        """Where sequences are not ``partial``: how many of its first tokens are those of another, whether it can begin
        with them or not."""
        ...

    def keep(self, sequence: Sequence) -> None:
        """Others will begin with what the sequence has computed so far. Where it may be ``partial``, nothing to do."""
        ...

    def rewinds(self, sequence: Sequence) -> bool:
        """Whether a step that was to compute tokens for it can be given up, and it goes on from where it was. Else it
        has to be released, and begins again."""
        ...

    def spoil(self, sequence: Sequence) -> None:
        """Such a step was given up: whatever is in the cache after its first ``sequence.computed`` tokens counts for
        nothing."""
        ...

    def release(self, sequence: Sequence, wanted: int = 0) -> None:
        """It has ended, or has to wait. Others will begin with its first ``wanted`` tokens, or it will itself."""
        ...

    def place(self, sequence: Sequence) -> Place_co:
        """Where a sequence that has begun is."""
        ...

    def take_moves(self) -> list[Move]:
        """What is to be done before the next step, in this order; handed out once."""
        ...
