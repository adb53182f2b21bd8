"""Which sequences compute which tokens in the next step, and for which there is KV memory. Pure: it never touches a
model.

Continuous batching: every step takes the running sequences first (one token each when decoding, a chunk when in
prefill), then admits waiting ones in order of arrival, all under one token budget. A step is planned with ``plan`` and,
once computed, entered with ``advance``; one that was aborted, with ``abort``: its moves have been made, but its tokens
have no KV state, and the next plan has them again, perhaps after those of others. One that there was no room
for goes to ``shrink``.

Interactive sequences go first. They have places of their own beside the batch's, take KV memory from batch sequences
where there is none left, and while there is one, a step computes only a few tokens besides theirs, so that it takes
about as long as if they were alone. The batch still goes on: besides those few tokens, its oldest sequence gets a turn
ahead of all others whenever interactive ones have computed ``TURN_TOKENS`` since a batch sequence ended.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections.abc import Callable, Iterator
from typing import Any

from gristmill.engines.embedded.kv.kv_memory import KvMemory
from gristmill.engines.embedded.kv.prefix_cache import common_length
from gristmill.engines.embedded.pictures.picture import whole_parts
from gristmill.engines.embedded.prefix_files.prefix_store import Found
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.scheduling.step_plan import Begun, Budget, Chunk, StepLimits, StepPlan

#: Tokens that a step computes for the batch besides those of interactive sequences. Rows of the batch that decode take
#: part in the one reading of the model that a step of a single row is bound by: eight make it 1.5 times as long,
#: sixteen 1.75 times, and the more there are, the less the batch loses (benchmarks/embedded/interactive.py).
TOKENS_BESIDE = 16
#: Where there is no room for a step of prefill that has fewer tokens, it is not for want of room for tokens.
FEWEST_TOKENS = 64
#: Tokens computed for interactive sequences after which a batch sequence has its turn.
TURN_TOKENS = 2048


class Scheduler:
    def __init__(self, limits: StepLimits, memory: KvMemory[Any, Any]) -> None:
        self.limits = limits
        self.memory = memory
        #: Both in order of ``Sequence.order``.
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        #: What is on disk of a sequence's beginning, and worth reading where so many tokens have KV state already.
        self.find_on_disk: Callable[[Sequence, int], Found | None] = lambda sequence, matched: None
        #: Sequences of the step whose beginnings are read from disk before it is computed.
        self._reading = set[Sequence]()
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
        if not 0 < len(sequence.tokens) <= self.memory.tokens:
            raise ValueError(f"a sequence of {len(sequence.tokens)} tokens does not fit the KV cache")
        sequence.arrival = next(self._arrivals)
        _insert(self.waiting, sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or cancelled sequence; its KV state stays reusable until evicted."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence, max(self._in_common(sequence, sequence.shared), default=0))
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        if not sequence.interactive:
            self._passed_over = 0

    def plan(self, most_tokens: int | None = None) -> StepPlan:
        """The next step, of at most ``most_tokens`` tokens where that is less than the limit. It is never empty as
        long as there is a sequence."""
        budget = Budget(min(most_tokens or self.limits.step_tokens, self.limits.step_tokens))
        step = StepPlan([], [], [])
        self._reading.clear()
        self._give_turn()
        room = self._go_on([each for each in self.running if each.urgent], budget, step)
        room = room and self._admit([each for each in self.waiting if each.urgent], budget, step)
        if self.interactive:
            budget.limit(TOKENS_BESIDE if step.chunks else self.limits.step_tokens)
        planned = {chunk.sequence for chunk in step.chunks}
        room = self._go_on([each for each in self.running if each not in planned], budget, step) and room
        if room:
            self._admit([each for each in self.waiting if not each.urgent], budget, step)
        step.moves.extend(self.memory.take_moves())
        return step

    def advance(self, step: StepPlan) -> None:
        """The step has been computed: its tokens have KV state."""
        for sequence, start, count, _ in step.chunks:
            sequence.computed = start + count
            if sequence.interactive:
                self._passed_over += count
            self.memory.note_computed(sequence)
            if sequence.computed == sequence.fork_at:
                self.keep(sequence)

    def keep(self, sequence: Sequence) -> None:
        """Others will begin with what the sequence has computed so far."""
        self.memory.keep(sequence)
        sequence.shared = sequence.computed

    def abort(self, step: StepPlan) -> None:
        """The step's moves have been made, but its tokens have not been computed, or not all of them."""
        for chunk in step.chunks:
            again = not self.memory.rewinds(chunk.sequence)
            self.memory.spoil(chunk.sequence)
            if again:
                self._preempt(chunk.sequence)

    def abortable(self, step: StepPlan) -> bool:
        """Whether nothing but the step itself is lost by an abort."""
        return all(self.memory.rewinds(chunk.sequence) for chunk in step.chunks)

    def shrink(self, step: StepPlan) -> bool:
        """There was no room to compute the step, whose moves have been made. From now on steps have half as many tokens
        if it was mainly prefill, else half as many sequences; those that are too many by now go back to wait. False
        where it can be no smaller."""
        rows, tokens = len(step.chunks), sum(chunk.tokens for chunk in step.chunks)
        limits = self.limits
        most_rows = min(limits.max_rows, rows)
        if most_rows > 1 and tokens <= max(4 * rows, FEWEST_TOKENS):
            self.limits = limits._replace(max_rows=most_rows // 2)
        elif tokens > 1:
            self.limits = limits._replace(step_tokens=tokens // 2)
        else:
            return False
        self.abort(step)
        for interactive in (False, True):
            alike = [each for each in self.running if each.interactive is interactive]
            for each in alike[self.limits.max_rows :]:
                self._preempt(each)
        return True

    def lose(self, begun: Begun, computed: int) -> None:
        """Of what was to be read for a sequence that has begun, only its first ``computed`` tokens have been. The step
        has to be aborted as well."""
        sequence = begun.sequence
        sequence.computed = computed
        if not sequence.preemptions:
            sequence.cached_tokens = computed

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
        """Plan the next chunks of running sequences. False when there was too little memory, so that none should be
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
            count = whole_parts(sequence.tokens, sequence.computed, self._to_fork(sequence, sequence.computed, count))
            while not self.memory.reserve(sequence, sequence.computed + count):
                room = False
                # The last one loses least. What this step has planned already keeps its memory.
                last = self.running[-1]
                if any(chunk.sequence is last for chunk in step.chunks):
                    break
                self._preempt(last)
                if last is sequence:
                    break
            else:
                self._plan_chunk(sequence, count, budget, step)
        return room

    def _plan_chunk(self, sequence: Sequence, count: int, budget: Budget, step: StepPlan) -> None:
        step.chunks.append(Chunk(sequence, sequence.computed, count, count == sequence.pending))
        budget.spend(sequence, sequence.computed, count)

    def _admit(self, sequences: list[Sequence], budget: Budget, step: StepPlan) -> bool:
        """Begin with waiting sequences. False when there is too little memory for one."""
        for sequence in sequences:
            if self._full(sequence.interactive) or budget.tokens <= 0:
                break
            if self._waits_for_leader(sequence):
                continue
            while not self._begin(sequence, budget, step):
                # An urgent one gets the memory of batch sequences, none of which has been planned by then.
                if not sequence.urgent or not self.running or self.running[-1].urgent:
                    return False
                self._preempt(self.running[-1])
        return True

    def _begin(self, sequence: Sequence, budget: Budget, step: StepPlan) -> bool:
        """Plan the first chunk of a waiting sequence, unless it has to wait for a leader, or the step is full. False
        when there is too little memory; what it was to begin with may have been evicted then."""
        matched = self.memory.match(sequence)
        if self._find_leader(sequence, matched):
            return True
        sequence.shared = matched
        found = self.find_on_disk(sequence, matched)
        known = found.tokens if found is not None else matched
        count = self._to_fork(sequence, known, budget.fit(sequence, known))
        if count <= 0:
            return True
        count = whole_parts(sequence.tokens, known, count)
        if not self.memory.begin(sequence, known + count):
            return False
        step.begun.append(Begun(sequence, matched, found))
        if found is not None:
            self._reading.add(sequence)
        sequence.computed = known
        if sequence.cached_tokens is None:
            sequence.cached_tokens = known
        self.waiting.remove(sequence)
        _insert(self.running, sequence)
        self._plan_chunk(sequence, count, budget, step)
        return True

    def _to_fork(self, sequence: Sequence, computed: int, count: int) -> int:
        """How many of ``count`` tokens to compute: where others can only begin with a sequence as it stands, no more
        than the next of those that wait has in common with it, or one that was computed before."""
        if self.memory.partial:
            return count
        least = sequence.shared + self.memory.grain
        alike = [*self._in_common(sequence, sequence.shared), self.memory.parts_at(sequence)]
        sequence.fork_at = min((each for each in alike if each >= least and each > computed), default=0)
        return min(count, sequence.fork_at - computed) if sequence.fork_at else count

    def _in_common(self, sequence: Sequence, known: int) -> Iterator[int]:
        """How many tokens each of the others that wait has in common with the sequence's prompt, where that is worth
        sharing besides the first ``known``."""
        least = known + self.memory.grain
        if least > sequence.prompt_tokens:
            return
        prompt = sequence.tokens[: sequence.prompt_tokens]
        wanted = prompt[known:least]
        for each in self.waiting:
            if each is not sequence and each.tokens[known:least] == wanted:
                common = common_length(prompt, each.tokens[: each.reusable])
                if common >= least:
                    yield common

    def _full(self, interactive: bool) -> bool:
        return sum(each.interactive is interactive for each in self.running) >= self.limits.max_rows

    def _waits_for_leader(self, sequence: Sequence) -> bool:
        leader = sequence.leader
        if leader is not None and leader.computed < sequence.leader_tokens and leader in self.running:
            return True
        sequence.leader = None
        return False

    def _find_leader(self, sequence: Sequence, matched: int) -> bool:
        """Leader first: whether a running sequence is about to compute tokens that this one would compute again, or to
        read them from disk."""
        grain, tokens = self.memory.grain, sequence.tokens
        if matched + grain > sequence.reusable:
            return False
        wanted = tokens[matched : matched + grain]
        for row in self.running:
            if row.computed >= row.prompt_tokens or row.tokens[matched : matched + grain] != wanted:
                continue
            common = common_length(tokens[: sequence.reusable], row.tokens[: row.prompt_tokens])
            needed = self.memory.shared_at(row, common)
            there = row.shared if row in self._reading else row.computed
            if common >= matched + grain and there < needed:
                sequence.leader, sequence.leader_tokens = row, needed
                if sequence.urgent and not row.urgent:
                    self._promote(row)
                return True
        return False

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence, wanted=sequence.computed)
        sequence.preemptions += 1
        _insert(self.waiting, sequence)

    def _release(self, sequence: Sequence, wanted: int) -> None:
        self.memory.release(sequence, wanted)
        sequence.computed = 0


def _insert(sequences: list[Sequence], sequence: Sequence) -> None:
    insort(sequences, sequence, key=lambda each: each.order)
