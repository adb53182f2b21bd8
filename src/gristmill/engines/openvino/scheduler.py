"""Which rows compute which tokens in the next step, and in which KV blocks. Pure: it never touches a model.

Continuous batching: every step takes the running rows first (one token each when decoding, a chunk when in prefill),
then admits waiting rows in order of arrival, all under one token budget. A step is planned with ``plan`` and, once
computed, entered with ``advance``.
"""

from __future__ import annotations

import itertools
from bisect import insort
from typing import NamedTuple

from gristmill.engines.openvino.block_pool import BlockPool
from gristmill.engines.openvino.prefix_tree import PrefixTree, common_length
from gristmill.engines.openvino.sequence import Sequence


class Limits(NamedTuple):
    """Tokens a block, blocks in all, tokens a step, rows at a time."""

    block_size: int
    blocks: int
    step_tokens: int
    max_rows: int


class Work(NamedTuple):
    """Compute ``tokens`` tokens of ``sequence`` from ``start``; ``samples`` when they reach its last token."""

    sequence: Sequence
    start: int
    tokens: int
    samples: bool


class Copy(NamedTuple):
    """Copy a KV block before the step. Copies are made in the order planned: a source may be a later target."""

    source: int
    target: int


class Step(NamedTuple):
    copies: list[Copy]
    work: list[Work]


class Scheduler:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pool = BlockPool(limits.blocks)
        self.tree = PrefixTree(limits.block_size)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._arrivals = itertools.count()

    def add(self, sequence: Sequence) -> None:
        """Raises ValueError for a sequence that could never fit; the caller bounds the context length."""
        if not 0 < len(sequence.tokens) <= self.limits.blocks * self.limits.block_size:
            raise ValueError(f"a sequence of {len(sequence.tokens)} tokens does not fit the KV cache")
        sequence.arrival = next(self._arrivals)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or cancelled sequence; its KV state stays reusable until evicted."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def plan(self) -> Step:
        budget = self.limits.step_tokens
        work: list[Work] = []
        preempted = False
        for sequence in list(self.running):
            count = min(sequence.pending, budget)
            if not count or sequence not in self.running:
                continue
            while not self._reserve(sequence, sequence.computed + count):
                preempted = True
                # The youngest row loses least, and it is never one that this step has planned already.
                if self._preempt_youngest() is sequence:
                    break
            else:
                work.append(Work(sequence, sequence.computed, count, count == sequence.pending))
                budget -= count
        copies = [] if preempted else self._admit(budget, work)
        return Step(copies, work)

    def advance(self, step: Step) -> None:
        """The step has been computed: its tokens have KV state, and full blocks may be shared."""
        for sequence, start, count, _ in step.work:
            sequence.computed = start + count
            self._publish(sequence)

    def _admit(self, budget: int, work: list[Work]) -> list[Copy]:
        copies: list[Copy] = []
        for sequence in list(self.waiting):
            if len(self.running) >= self.limits.max_rows or budget <= 0:
                break
            if self._waits_for_leader(sequence):
                continue
            match = self.tree.match(sequence.tokens, sequence.reusable)
            matched = len(match.blocks) * self.limits.block_size + match.partial_tokens
            if self._find_leader(sequence, matched):
                continue
            self.tree.lock(match.node)
            sequence.node, sequence.blocks, sequence.published = match.node, match.blocks, len(match.blocks)
            count = min(len(sequence.tokens) - matched, budget)
            if not self._room_for(sequence, matched + count) or not self._reserve(sequence, matched + count):
                self._release(sequence)
                break
            if match.partial is not None:
                copies.append(Copy(match.partial, sequence.blocks[sequence.published]))
            sequence.computed = matched
            if sequence.cached_tokens is None:
                sequence.cached_tokens = matched
            self.waiting.remove(sequence)
            insort(self.running, sequence, key=lambda row: row.arrival)
            work.append(Work(sequence, matched, count, count == sequence.pending))
            budget -= count
        return copies

    def _waits_for_leader(self, sequence: Sequence) -> bool:
        leader = sequence.leader
        if leader is not None and leader.computed < sequence.leader_tokens and leader in self.running:
            return True
        sequence.leader = None
        return False

    def _find_leader(self, sequence: Sequence, matched: int) -> bool:
        """Leader first: whether a running row is about to compute a block that this one would compute again."""
        size, tokens = self.limits.block_size, sequence.tokens
        if matched + size > sequence.reusable:
            return False
        wanted = tokens[matched : matched + size]
        for row in self.running:
            if row.computed >= row.prompt_tokens or row.tokens[matched : matched + size] != wanted:
                continue
            common = common_length(tokens[: sequence.reusable], row.tokens[: row.prompt_tokens])
            # Up to the end of the block in which the two part, which can be copied once it is full.
            needed = min(-(-common // size) * size, row.prompt_tokens)
            if common >= matched + size and row.computed < needed:
                sequence.leader, sequence.leader_tokens = row, needed
                return True
        return False

    def _room_for(self, sequence: Sequence, tokens: int) -> bool:
        """Keep one free block for each running row, or admission and preemption would chase each other."""
        if not self.running:
            return True
        need = -(-tokens // self.limits.block_size) - len(sequence.blocks) + len(self.running)
        while self.pool.free < need:
            block = self.tree.evict()
            if block is None:
                return False
            self.pool.give_back(block)
        return True

    def _reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Give the sequence blocks for its first ``tokens`` tokens, evicting idle prefixes if needed."""
        while len(sequence.blocks) * self.limits.block_size < tokens:
            block = self.pool.take()
            if block is None:
                block = self.tree.evict()
            if block is None:
                return False
            sequence.blocks.append(block)
        return True

    def _publish(self, sequence: Sequence) -> None:
        size = self.limits.block_size
        while (sequence.published + 1) * size <= sequence.computed:
            index = sequence.published
            assert sequence.node is not None
            key = tuple(sequence.tokens[index * size : (index + 1) * size])
            node = self.tree.publish(sequence.node, key, sequence.blocks[index])
            if node.block != sequence.blocks[index]:
                # Another row computed the same tokens meanwhile: one copy is enough.
                self.pool.give_back(sequence.blocks[index])
                sequence.blocks[index] = node.block
            self.tree.lock(node)
            self.tree.unlock(sequence.node)
            sequence.node = node
            sequence.published += 1

    def _preempt_youngest(self) -> Sequence:
        sequence = self.running.pop()
        self._release(sequence)
        sequence.preemptions += 1
        insort(self.waiting, sequence, key=lambda row: row.arrival)
        return sequence

    def _release(self, sequence: Sequence) -> None:
        for block in sequence.blocks[sequence.published :]:
            self.pool.give_back(block)
        if sequence.node is not None:
            self.tree.unlock(sequence.node)
        sequence.blocks, sequence.published, sequence.node, sequence.computed = [], 0, None, 0
