"""The prefix cache: a radix tree over token ids, one full KV block a node.

A node's path from the root spells the tokens its block was computed after, so any prompt that starts with them may
use it. A sequence locks only the deepest node it uses: a node with children is never evicted, hence neither are the
ancestors of a locked one.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import NamedTuple


class BlockPool:
    """The free KV blocks. A block holds the keys and values of ``block_size`` consecutive tokens, in all layers."""

    def __init__(self, blocks: int) -> None:
        self.size = blocks
        # Popped from the end, so that low block ids (memory already touched) are reused first.
        self._free = list(range(blocks - 1, -1, -1))

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self) -> int | None:
        """A free block, or None when there is none."""
        return self._free.pop() if self._free else None

    def give_back(self, block: int) -> None:
        self._free.append(block)


#: Siblings looked at for a partly shared block; the newest first. Rows of one batch split at the same token, so
#: any sibling does; the bound keeps a lookup cheap when ten thousand rows hang on one rubric.
_SIBLINGS = 8


class BlockNode:
    __slots__ = ("block", "children", "key", "last_used", "locks", "parent")

    def __init__(self, key: tuple[int, ...], block: int, parent: BlockNode | None) -> None:
        self.key = key
        self.block = block
        self.parent = parent
        self.children: dict[tuple[int, ...], BlockNode] = {}
        self.locks = 0
        self.last_used = 0


class Match(NamedTuple):
    """``node`` is the deepest matching one (the root when nothing matches) and ``blocks`` the ids on the path to it.

    ``partial`` is a child block whose first ``partial_tokens`` tokens match too: worth copying, not sharing.
    """

    node: BlockNode
    blocks: list[int]
    partial: int | None
    partial_tokens: int


class PrefixCache:
    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.root = BlockNode((), -1, None)
        self.nodes = 0
        self._clock = itertools.count(1)
        #: (last_used, tie-breaker, node) of leaves that were idle when pushed; stale entries are skipped.
        self._idle: list[tuple[int, int, BlockNode]] = []

    def match(self, tokens: Sequence[int], limit: int) -> Match:
        """The longest cached prefix among the first ``limit`` tokens. Marks it as used now."""
        size = self.block_size
        node, blocks, now = self.root, list[int](), next(self._clock)
        start = 0
        while start + size <= limit:
            child = node.children.get(tuple(tokens[start : start + size]))
            if child is None:
                break
            child.last_used = now
            blocks.append(child.block)
            node, start = child, start + size
        partial, shared = self._closest_child(node, tokens[start : min(start + size, limit)])
        return Match(node, blocks, partial, shared)

    def _closest_child(self, node: BlockNode, rest: Sequence[int]) -> tuple[int | None, int]:
        best, best_length = None, 0
        for child in itertools.islice(reversed(node.children.values()), _SIBLINGS):
            length = common_length(child.key, rest)
            if length > best_length:
                best, best_length = child.block, length
        return best, best_length

    def publish(self, parent: BlockNode, key: tuple[int, ...], block: int) -> BlockNode:
        """The node for ``key`` under ``parent``. When it exists already its ``block`` is not ours: use that one."""
        node = parent.children.get(key)
        if node is None:
            node = parent.children[key] = BlockNode(key, block, parent)
            self.nodes += 1
        node.last_used = next(self._clock)
        return node

    def lock(self, node: BlockNode) -> None:
        node.locks += 1

    def unlock(self, node: BlockNode) -> None:
        node.locks -= 1
        self._remember_if_idle(node)

    def evict(self) -> int | None:
        """Forget the leaf nobody uses that was used longest ago; returns its block, or None."""
        while self._idle:
            used, _, node = heapq.heappop(self._idle)
            if node.parent is None or node.locks or node.children:
                continue
            if node.last_used != used:
                self._remember_if_idle(node)
                continue
            del node.parent.children[node.key]
            parent, node.parent = node.parent, None
            self.nodes -= 1
            self._remember_if_idle(parent)
            return node.block
        return None

    def _remember_if_idle(self, node: BlockNode) -> None:
        if node.locks or node.children or node.parent is None:
            return
        heapq.heappush(self._idle, (node.last_used, next(self._clock), node))
        if len(self._idle) > 4 * self.nodes + 64:
            self._rebuild()

    def _rebuild(self) -> None:
        """Drop the stale entries, which otherwise gather as long as nothing is evicted."""
        live = {id(node): node for _, _, node in self._idle if node.parent and not node.locks and not node.children}
        self._idle = [(node.last_used, next(self._clock), node) for node in live.values()]
        heapq.heapify(self._idle)


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return shorter
