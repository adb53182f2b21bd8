"""A KV cache of blocks, each for some tokens that follow one another: any sequence may begin with any blocks."""

from __future__ import annotations

from typing import NamedTuple

from gristmill.engines.embedded.kv.prefix_cache import BlockNode, BlockPool, PrefixCache
from gristmill.engines.embedded.scheduling.sequence import Sequence


class Copy(NamedTuple):
    """Copy a KV block before the step: a source may be a later target, and the two may be the same."""

    source: int
    target: int


class _Held:
    """``blocks[i]`` holds tokens ``i * block_size`` onwards. The first ``published`` blocks belong to the prefix tree
    (``node`` is the deepest of them, locked), the others to the sequence alone."""

    __slots__ = ("blocks", "node", "published")

    def __init__(self, node: BlockNode, blocks: list[int]) -> None:
        self.node = node
        self.blocks = blocks
        self.published = len(blocks)


class PagedMemory:
    """``KvMemory``, where a place is a list of block ids."""

    partial = True

    def __init__(self, block_size: int, blocks: int) -> None:
        self.block_size = self.grain = block_size
        self.tokens = block_size * blocks
        self.pool = BlockPool(blocks)
        self.tree = PrefixCache(block_size)
        self._held: dict[Sequence, _Held] = {}
        self._moves: list[Copy] = []

    def match(self, sequence: Sequence) -> int:
        match = self.tree.match(sequence.tokens, sequence.reusable)
        return len(match.blocks) * self.block_size + match.partial_tokens

    def shared_at(self, running: Sequence, common: int) -> int:
        # Up to the end of the block in which the two part, which can be copied once it is full.
        return min(-(-common // self.block_size) * self.block_size, running.prompt_tokens)

    def begin(self, sequence: Sequence, tokens: int) -> bool:
        match = self.tree.match(sequence.tokens, sequence.reusable)
        self.tree.lock(match.node)
        held = self._held[sequence] = _Held(match.node, match.blocks)
        if not self._room_for(held, tokens) or not self.reserve(sequence, tokens):
            self.release(sequence)
            return False
        if match.partial is not None:
            self._moves.append(Copy(match.partial, held.blocks[held.published]))
        return True

    def _room_for(self, held: _Held, tokens: int) -> bool:
        """Keep one free block for each running sequence."""
        running = len(self._held) - 1
        if not running:
            return True
        need = -(-tokens // self.block_size) - len(held.blocks) + running
        while self.pool.free < need:
            block = self.tree.evict()
            if block is None:
                return False
            self.pool.give_back(block)
        return True

    def reserve(self, sequence: Sequence, tokens: int) -> bool:
        blocks = self._held[sequence].blocks
        while len(blocks) * self.block_size < tokens:
            block = self.pool.take()
            if block is None:
                block = self.tree.evict()
            if block is None:
                return False
            blocks.append(block)
        return True

    def note_computed(self, sequence: Sequence) -> None:
        size, held = self.block_size, self._held[sequence]
        while (held.published + 1) * size <= sequence.computed:
            index = held.published
            key = tuple(sequence.tokens[index * size : (index + 1) * size])
            node = self.tree.publish(held.node, key, held.blocks[index])
            if node.block != held.blocks[index]:
                # Another sequence computed the same tokens meanwhile: one copy is enough.
                self.pool.give_back(held.blocks[index])
                held.blocks[index] = node.block
            self.tree.lock(node)
            self.tree.unlock(held.node)
            held.node = node
            held.published += 1

    def parts_at(self, sequence: Sequence) -> int:
        return 0

    def keep(self, sequence: Sequence) -> None:
        pass  # It is in the tree.

    def rewinds(self, sequence: Sequence) -> bool:
        return True

    def spoil(self, sequence: Sequence) -> None:
        pass  # What the step has left in the sequence's own blocks is written again by the next.

    def release(self, sequence: Sequence, wanted: int = 0) -> None:
        held = self._held.pop(sequence)
        for block in held.blocks[held.published :]:
            self.pool.give_back(block)
        self.tree.unlock(held.node)

    def place(self, sequence: Sequence) -> list[int]:
        return self._held[sequence].blocks

    def take_moves(self) -> list[Copy]:
        moves, self._moves = self._moves, []
        return moves
