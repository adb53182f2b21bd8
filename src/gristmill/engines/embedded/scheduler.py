"""Which sequences compute which tokens in the next step, and in which KV blocks. Pure: it never touches a model.

Continuous batching: every step takes the running sequences first (one token each when decoding, a chunk when in
prefill), then admits waiting ones in order of arrival, all under one token budget. A step is planned with ``plan`` and,
once computed, entered with ``advance``. One that was aborted is not entered: its copies have been made, but its tokens
have no KV state, and the next plan has them again, perhaps after those of others.

Interactive sequences go first. They have places of their own beside the batch's, take KV blocks from batch sequences
where there are none left, and while there is one, a step computes only a few tokens besides theirs, so that it takes
about as long as if they were alone. The batch still goes on: besides those few tokens, its oldest sequence gets a turn
ahead of all others whenever interactive ones have computed ``TURN_TOKENS`` since a batch sequence ended.
"""

from __future__ import annotations

import itertools
from bisect import insort

from gristmill.engines.embedded.prefix_cache import BlockPool, PrefixCache, common_length
from gristmill.engines.embedded.sequence import Sequence
from gristmill.engines.embedded.step_plan import Budget, Chunk, Copy, StepLimits, StepPlan

#: Tokens that a step computes for the batch besides those of interactive sequences. Rows of the batch that decode take
#: part in the one reading of the model that a step of a single row is bound by: eight make it 1.5 times as long,
#: sixteen 1.75 times, and the more there are, the less the batch loses (benchmarks/embedded/interactive.py).
TOKENS_BESIDE = 16
#: Tokens computed for interactive sequences after which a batch sequence has its turn.
TURN_TOKENS = 2048


class Scheduler:
    def __init__(self, limits: StepLimits) -> None:
        self.limits = limits
        self.pool = BlockPool(limits.blocks)
        self.tree = PrefixCache(limits.block_size)
        #: Both in order of ``Sequence.place``.
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._arrivals = itertools.count()
        self._passed_over = 0

    @property
    def sequences(self) -> int:
        return len(self.running) + len(self.waiting)

    @property
    def interactive(self) -> bool:
        """Whether somebody is waiting for the answer of any sequence."""
        return any(each.interactive for each in itertools.chain(self.running, self.waiting))

    def add(self, sequence: Sequence) -> None:
        """Raises ValueError for a sequence that could never fit; the caller bounds the context length."""
        if not 0 < len(sequence.tokens) <= self.limits.blocks * self.limits.block_size:
            raise ValueError(f"a sequence of {len(sequence.tokens)} tokens does not fit the KV cache")
        sequence.arrival = next(self._arrivals)
        _insert(self.waiting, sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or cancelled sequence; its KV state stays reusable until evicted."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        if not sequence.interactive:
            self._passed_over = 0

    def plan(self, most_tokens: int | None = None) -> StepPlan:
        """The next step, of at most ``most_tokens`` tokens where that is less than the limit. It is never empty as
        long as there is a sequence."""
        budget = Budget(min(most_tokens or self.limits.step_tokens, self.limits.step_tokens))
        step = StepPlan([], [])
        self._give_turn()
        room = self._go_on([each for each in self.running if each.urgent], budget, step)
        room = room and self._admit([each for each in self.waiting if each.urgent], budget, step)
        if self.interactive:
            budget.limit(TOKENS_BESIDE if step.chunks else self.limits.step_tokens)
        planned = {chunk.sequence for chunk in step.chunks}
        room = self._go_on([each for each in self.running if each not in planned], budget, step) and room
        if room:
            self._admit([each for each in self.waiting if not each.urgent], budget, step)
        return step

    def advance(self, step: StepPlan) -> None:
        """The step has been computed: its tokens have KV state, and full blocks may be shared."""
        for sequence, start, count, _ in step.chunks:
            sequence.computed = start + count
            if sequence.interactive:
                self._passed_over += count
            self._publish(sequence)

    def _give_turn(self) -> None:
        if self._passed_over < TURN_TOKENS:
            return
        self._passed_over = 0
        oldest = min(
            (each for each in itertools.chain(self.running, self.waiting) if not each.urgent),
            key=lambda each: each.arrival,
            default=None,
        )
        if oldest is not None:
            self._promote(oldest)

    def _promote(self, sequence: Sequence) -> None:
        held = self.running if sequence in self.running else self.waiting
        held.remove(sequence)
        sequence.urgent = True
        _insert(held, sequence)

    def _go_on(self, sequences: list[Sequence], budget: Budget, step: StepPlan) -> bool:
        """Plan the next chunks of running sequences. False when there were too few blocks, so that none should be
        admitted."""
        room = True
        for index, sequence in enumerate(sequences):
            # A long prefill leaves the others a token each, and half of the step to urgent ones that are not in yet.
            spared = len(sequences) - index - 1
            if sequence.urgent and any(each.urgent and each.leader is None for each in self.waiting):
                spared = max(spared, budget.tokens // 2)
            count = min(budget.fit(sequence, sequence.computed), max(budget.tokens - spared, 1))
            if count <= 0 or sequence not in self.running:
                continue
            while not self._reserve(sequence, sequence.computed + count):
                room = False
                # The last one loses least. What this step has planned already keeps its blocks.
                if any(chunk.sequence is self.running[-1] for chunk in step.chunks) or self._preempt_last() is sequence:
                    break
            else:
                self._plan_chunk(sequence, count, budget, step)
        return room

    def _plan_chunk(self, sequence: Sequence, count: int, budget: Budget, step: StepPlan) -> None:
        step.chunks.append(Chunk(sequence, sequence.computed, count, count == sequence.pending))
        budget.spend(sequence, sequence.computed, count)

    def _admit(self, sequences: list[Sequence], budget: Budget, step: StepPlan) -> bool:
        """Begin with waiting sequences. False when one does not fit for want of blocks."""
        for sequence in sequences:
            if self._full(sequence.interactive) or budget.tokens <= 0:
                break
            if self._waits_for_leader(sequence):
                continue
            match = self.tree.match(sequence.tokens, sequence.reusable)
            matched = len(match.blocks) * self.limits.block_size + match.partial_tokens
            if self._find_leader(sequence, matched):
                continue
            count = budget.fit(sequence, matched)
            if count <= 0:
                break
            self.tree.lock(match.node)
            sequence.node, sequence.blocks, sequence.published = match.node, match.blocks, len(match.blocks)
            if not self._make_room(sequence, matched + count):
                self._release(sequence)
                return False
            if match.partial is not None:
                step.copies.append(Copy(match.partial, sequence.blocks[sequence.published]))
            sequence.computed = matched
            if sequence.cached_tokens is None:
                sequence.cached_tokens = matched
            self.waiting.remove(sequence)
            _insert(self.running, sequence)
            self._plan_chunk(sequence, count, budget, step)
        return True

    def _full(self, interactive: bool) -> bool:
        return sum(each.interactive is interactive for each in self.running) >= self.limits.max_rows

    def _waits_for_leader(self, sequence: Sequence) -> bool:
        leader = sequence.leader
        if leader is not None and leader.computed < sequence.leader_tokens and leader in self.running:
            return True
        sequence.leader = None
        return False

    def _find_leader(self, sequence: Sequence, matched: int) -> bool:
        """Leader first: whether a running sequence is about to compute a block that this one would compute again."""
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
                if sequence.urgent and not row.urgent:
                    self._promote(row)
                return True
        return False

    def _make_room(self, sequence: Sequence, tokens: int) -> bool:
        """Give a sequence that is admitted blocks for its first ``tokens`` tokens. An urgent one gets those of batch
        sequences, none of which has been planned by then."""
        while not self._room_for(sequence, tokens):
            if not sequence.urgent or not self.running or self.running[-1].urgent:
                return False
            self._preempt_last()
        return self._reserve(sequence, tokens)

    def _room_for(self, sequence: Sequence, tokens: int) -> bool:
        """Keep one free block for each running sequence, or admission and preemption would chase each other."""
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
                # Another sequence computed the same tokens meanwhile: one copy is enough.
                self.pool.give_back(sequence.blocks[index])
                sequence.blocks[index] = node.block
            self.tree.lock(node)
            self.tree.unlock(sequence.node)
            sequence.node = node
            sequence.published += 1

    def _preempt_last(self) -> Sequence:
        sequence = self.running.pop()
        self._release(sequence)
        sequence.preemptions += 1
        _insert(self.waiting, sequence)
        return sequence

    def _release(self, sequence: Sequence) -> None:
        for block in sequence.blocks[sequence.published :]:
            self.pool.give_back(block)
        if sequence.node is not None:
            self.tree.unlock(sequence.node)
        sequence.blocks, sequence.published, sequence.node, sequence.computed = [], 0, None, 0


def _insert(sequences: list[Sequence], sequence: Sequence) -> None:
    insort(sequences, sequence, key=lambda each: each.place)
