"""What llama.cpp's unified KV cache does, and nothing else: for tests of who may attend to what."""

from __future__ import annotations

from collections.abc import Iterable

from gristmill.engines.embedded.forked_memory import Forget, Fork


class Cells:
    """Cells with a position and a set of sequence ids. A cell remembers which tokens it was
    computed after; where sequences are not ``partial``, an id remembers that too, as a recurrent state does."""

    def __init__(self, count: int, ids: int, partial: bool) -> None:
        self.count, self.ids, self.partial = count, ids, partial
        self.used: list[tuple[int, set[int], tuple[int, ...]]] = []

    def of(self, place: int) -> list[tuple[int, ...]]:
        """What the cells of a sequence were computed after, by position."""
        found = sorted((position, content) for position, ids, content in self.used if place in ids)
        assert [position for position, _ in found] == list(range(len(found)))
        return [content for _, content in found]

    def move(self, moves: Iterable[Fork | Forget]) -> None:
        for move in moves:
            if isinstance(move, Fork):
                source = self.of(move.source)
                assert not self.of(move.target)
                assert len(source) == move.tokens if not self.partial else len(source) >= move.tokens
                for position, ids, _ in self.used:
                    if move.source in ids and position < move.tokens:
                        ids.add(move.target)
            else:
                assert self.partial or move.start == 0
                for position, ids, _ in self.used:
                    if position >= move.start:
                        ids.discard(move.sequence)
                self.used = [cell for cell in self.used if cell[1]]

    def write(self, place: int, position: int, content: tuple[int, ...]) -> None:
        assert 0 <= place < self.ids
        assert len(self.of(place)) == position
        self.used.append((position, {place}, content))
        assert len(self.used) <= self.count
