"""A KV cache that one sequence at a time has to itself, token i in cell i."""

from __future__ import annotations

from gristmill.engines.embedded.kv.forked_memory import Forget
from gristmill.engines.embedded.kv.prefix_cache import common_length
from gristmill.engines.embedded.scheduling.sequence import Sequence

#: The one place there is.
_SLOT = 0


class SlotMemory:
    """``KvMemory``, where the only place is a sequence id of its own cache.

    What a sequence has computed stays until another begins, which keeps what both begin with and appends the rest. So
    a token's cell is its position, whoever computed it, and what attention adds up is in one order. Rows of a batch
    come ordered by what they share, so that hardly any more is computed than with a cache for many.
    """

    #: Nothing is gained by waiting for another: there is no other.
    grain = 32
    partial = True

    def __init__(self, cells: int) -> None:
        self.tokens = cells
        #: What the cells hold, the first first.
        self._there: list[int] = []
        self._holder: Sequence | None = None
        self._moves: list[Forget] = []

    def match(self, sequence: Sequence) -> int:
        return common_length(self._there, sequence.tokens[: sequence.reusable])

    def shared_at(self, running: Sequence, common: int) -> int:
        return common

    def begin(self, sequence: Sequence, tokens: int) -> bool:
        if self._holder is not None:
            return False
        self._holder = sequence
        del self._there[self.match(sequence) :]
        self._moves.append(Forget(_SLOT, len(self._there)))
        return True

    def reserve(self, sequence: Sequence, tokens: int) -> bool:
        return tokens <= self.tokens

    def note_computed(self, sequence: Sequence) -> None:
        self._there += sequence.tokens[len(self._there) : sequence.computed]

    def parts_at(self, sequence: Sequence) -> int:
        return 0

    def keep(self, sequence: Sequence) -> None:
        pass

    def rewinds(self, sequence: Sequence) -> bool:
        return True

    def spoil(self, sequence: Sequence) -> None:
        self._moves.append(Forget(_SLOT, len(self._there)))

    def release(self, sequence: Sequence, wanted: int = 0) -> None:
        self._holder = None

    def place(self, sequence: Sequence) -> int:
        return _SLOT

    def take_moves(self) -> list[Forget]:
        moves, self._moves = self._moves, []
        return moves
