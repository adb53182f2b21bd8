"""The order in which rows run: groups one after another, and rows of one group in the order of their lines. Pure."""

from __future__ import annotations

from array import array


class RowOrder:
    """Takes rows in the order of their keys, cut into parts; ``lines`` is the order to run them in."""

    def __init__(self) -> None:
        self._lines = array("q")
        self._limits = array("q")
        self._part = 0
        #: Where a group begins that shares nothing with the one before.
        self._units = array("q")

    def add(self, line: int, output_limit: int, begins: int, shares: bool) -> None:
        """``begins`` as ``PrefixGroupTree.add`` gives it; ``shares``: whether with the row before."""
        place = len(self._lines)
        if begins:
            self._sort(place + 1 - begins)
        if not shares:
            self._units.append(place)
        self._lines.append(line)
        self._limits.append(output_limit)

    def lines(self) -> tuple[array[int], array[int]]:
        """All of them, and the place after each outermost group. Groups whose rows may have the longest answers come
        first, so that no straggler is left for the end; else the group that begins first in the file. Rows that share
        with nobody come last."""
        self._sort(len(self._lines))
        groups: list[tuple[float, int, int, int]] = []
        alone = array("q")
        for begin, end in zip(self._units, [*self._units[1:], len(self._lines)], strict=True):
            if end - begin == 1:
                alone.append(self._lines[begin])
            else:
                mean = sum(self._limits[begin:end]) / (end - begin)
                groups.append((-mean, min(self._lines[begin:end]), begin, end))
        groups.sort()
        ordered, ends = array("q"), array("q")
        for _, _, begin, end in groups:
            ordered += self._lines[begin:end]
            ends.append(len(ordered))
        return ordered + array("q", sorted(alone)), ends

    def _sort(self, end: int) -> None:
        """Close the part before ``end``."""
        if end - self._part > 1:
            self._lines[self._part : end] = array("q", sorted(self._lines[self._part : end]))
        self._part = end
