"""What llama.cpp's unified KV cache does, and nothing else: for tests of who may attend to what."""

from __future__ import annotations

from collections.abc import Iterable

from gristmill.engines.embedded.kv.forked_memory import Forget, Fork


class Cell:
    """``content``: the tokens up to its own, after which it was computed. ``passed``: of the layers with a window,
    something else may be in it by now."""

    def __init__(self, position: int, place: int, content: tuple[int, ...]) -> None:
        self.position = position
        self.ids = {place}
        self.content = content
        self.passed = False


class Cells:
    """Cells with a position and a set of sequence ids. Where sequences are not ``partial``, an id has a recurrent state
    besides, that after all of its tokens. With a ``window``, cells of the layers that have one are used for others as
    soon as llama.cpp may do so."""

    def __init__(self, count: int, ids: int, partial: bool = True, window: int = 0) -> None:
        self.count, self.ids, self.partial, self.window = count, ids, partial, window
        self.used: list[Cell] = []

    def held(self, place: int) -> list[Cell]:
        """The cells of a sequence, by position."""
        found = sorted((cell for cell in self.used if place in cell.ids), key=lambda cell: cell.position)
        assert [cell.position for cell in found] == list(range(len(found)))
        return found

    def of(self, place: int) -> list[tuple[int, ...]]:
        """What the cells of a sequence were computed after, by position."""
        return [cell.content for cell in self.held(place)]

    def move(self, moves: Iterable[Fork | Forget]) -> None:
        for move in moves:
            if isinstance(move, Fork):
                source = self.held(move.source)
                assert not self.held(move.target)
                assert len(source) == move.tokens if not self.partial else len(source) >= move.tokens
                for cell in source[: move.tokens]:
                    cell.ids.add(move.target)
            else:
                assert self.partial or move.start == 0
                for cell in self.held(move.sequence)[move.start :]:
                    cell.ids.discard(move.sequence)
                self.used = [cell for cell in self.used if cell.ids]
            self._pass()

    def write(self, place: int, position: int, content: tuple[int, ...]) -> None:
        assert 0 <= place < self.ids
        before = self.held(place)
        assert len(before) == position
        if self.window:
            # All that the token attends to in such a layer.
            assert not any(cell.passed for cell in before[max(position - self.window + 1, 0) :])
        self.used.append(Cell(position, place, content))
        assert len(self.used) <= self.count
        self._pass()

    def _pass(self) -> None:
        if not self.window:
            return
        ends = [0] * self.ids
        for cell in self.used:
            for place in cell.ids:
                ends[place] = max(ends[place], cell.position + 1)
        for cell in self.used:
            if len(cell.ids) == 1 and max(ends[place] for place in cell.ids) - cell.position >= self.window:
                cell.passed = True
