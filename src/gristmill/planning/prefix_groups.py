"""Which rows share how much: the prefix tree of a job, built from its sorted rows. Pure, in one pass.

Rows belong together at depth k if their prompts share k steps of some 64 tokens, as sharing less saves nothing worth a
group. Groups nest, as do a rubric, and one of several job postings behind it. Sizes are in bytes or in tokens.
"""

from __future__ import annotations

from typing import NamedTuple

#: A step in bytes of UTF-8, and in tokens.
STEP, TOKEN_STEP = 256, 64
#: A group that saves less than this share of the job's prompts is not listed; its rows are still in order.
_LISTED_SHARE = 1e-4


class PrefixGroup(NamedTuple):
    """``rows`` rows share the first ``shared_size`` of their prompts; the first ``parent_size`` also with the group
    around it. ``prompt_size`` is the sum over its rows; ``parent`` the index of the group around it."""

    parent: int | None
    shared_size: int
    parent_size: int
    rows: int
    prompt_size: int
    first_line: int

    @property
    def saved_size(self) -> int:
        """How much of the prompts is computed once here instead of once a row."""
        return (self.rows - 1) * (self.shared_size - self.parent_size)


class _Node:
    __slots__ = ("children", "first_line", "level", "prompt_size", "rows", "shared")

    def __init__(self, level: int, shared: int) -> None:
        self.level = level
        self.shared = shared
        self.rows = 0
        self.prompt_size = 0
        self.first_line = 2**63
        self.children: list[_Node] = []

    def count(self, rows: int, prompt_size: int, first_line: int) -> None:
        self.rows += rows
        self.prompt_size += prompt_size
        self.first_line = min(self.first_line, first_line)


class PrefixGroupTree:
    """``add`` the rows in order, then ``groups``. ``total``: the size of all prompts, to tell what is worth listing."""

    def __init__(self, total: float, step: int = STEP) -> None:
        self._worth = total * _LISTED_SHARE
        self._step = step
        self._open = [_Node(0, 0)]
        self._last: tuple[int, int] | None = None

    def add(self, line: int, prompt_size: int, shared: int) -> int:
        """The first ``shared`` of the prompt are those of the row before. How many rows, this one counted, the part of
        the order has that begins here: 0 where none begins, 2 where the row before turns out to belong to this one."""
        level = shared // self._step
        begins = 0
        if self._last is not None:
            while self._open[-1].level > level:
                self._close(level, shared)
                begins = 1
            if self._open[-1].level < level:
                self._part_from_last(level, shared)
                begins = 2
            self._open[-1].shared = min(self._open[-1].shared, shared)
        self._open[-1].count(1, prompt_size, line)
        self._last = (line, prompt_size)
        return begins

    def groups(self) -> list[PrefixGroup]:
        """Every group after the group around it, in depth-first order. Nothing can be added afterwards."""
        while len(self._open) > 1:
            self._close(0, 0)
        found: list[PrefixGroup] = []
        waiting: list[tuple[_Node, int | None, int]] = [(child, None, 0) for child in reversed(self._open[0].children)]
        while waiting:
            node, parent, parent_size = waiting.pop()
            found.append(PrefixGroup(parent, node.shared, parent_size, node.rows, node.prompt_size, node.first_line))
            index = len(found) - 1
            waiting += [(child, index, node.shared) for child in reversed(node.children)]
        return found

    def _close(self, level: int, shared: int) -> None:
        """The innermost group has ended. If the next row shares more with it than the group around it does, both
        belong to a group in between."""
        node = self._open.pop()
        if self._open[-1].level < level:
            self._open.append(_Node(level, shared))
        around = self._open[-1]
        around.count(node.rows, node.prompt_size, node.first_line)
        if (node.rows - 1) * (node.shared - around.shared) >= self._worth:
            around.children.append(node)
        else:
            around.children += node.children

    def _part_from_last(self, level: int, shared: int) -> None:
        """The row before shares more with this row than with the others around it."""
        assert self._last is not None
        line, prompt_size = self._last
        around = self._open[-1]
        around.rows -= 1
        around.prompt_size -= prompt_size
        node = _Node(level, shared)
        node.count(1, prompt_size, line)
        self._open.append(node)
