"""A KV cache of cells, as llama.cpp's unified one is: any sequence may share the beginning of another."""

from __future__ import annotations

from typing import NamedTuple

from gristmill.engines.embedded.sequence import Sequence


class Fork(NamedTuple):
    """``target``, which is empty, begins with the first ``tokens`` tokens of ``source``; both are sequence ids."""

    source: int
    target: int
    tokens: int


class Forget(NamedTuple):
    """Of the sequence with this id, nothing from position ``start`` on; what others share stays theirs."""

    sequence: int
    start: int


class ForkedMemory:
    """``KvMemory``, where a place is a sequence id: 0 to ``sequences - 1``."""

    grain = 32

    def __init__(self, cells: int, sequences: int) -> None:
        """``cells``: tokens that the KV cache has room for, shared ones counted once."""
        self.tokens = cells
        self._free_cells = cells
        self._free_ids = list(range(sequences - 1, -1, -1))
        #: Id, and tokens there is room for.
        self._held: dict[Sequence, tuple[int, int]] = {}
        self._moves: list[Fork | Forget] = []

    def match(self, sequence: Sequence) -> int:
        return 0

    def shared_at(self, running: Sequence, common: int) -> int:
        return common

    def begin(self, sequence: Sequence, tokens: int) -> bool:
        if not self._free_ids or tokens + len(self._held) > self._free_cells:
            return False
        self._held[sequence] = (self._free_ids.pop(), 0)
        return self.reserve(sequence, tokens)

    def reserve(self, sequence: Sequence, tokens: int) -> bool:
        place, room = self._held[sequence]
        if tokens - room > self._free_cells:
            return False
        self._free_cells -= max(tokens - room, 0)
        self._held[sequence] = (place, max(tokens, room))
        return True

    def note_computed(self, sequence: Sequence) -> None:
        pass

    def spoil(self, sequence: Sequence) -> bool:
        self._moves.append(Forget(self.place(sequence), sequence.computed))
        return True

    def release(self, sequence: Sequence, returns: bool = False) -> None:
        place, room = self._held.pop(sequence)
        self._free_ids.append(place)
        self._free_cells += room
        self._moves.append(Forget(place, 0))

    def place(self, sequence: Sequence) -> int:
        return self._held[sequence][0]

    def take_moves(self) -> list[Fork | Forget]:
        moves, self._moves = self._moves, []
        return moves
