"""The free KV blocks. A block holds the keys and values of ``block_size`` consecutive tokens, in all layers."""

from __future__ import annotations


class BlockPool:
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
