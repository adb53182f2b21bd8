"""The scheduler against a pretend KV cache that remembers, for every block, which tokens it was computed after."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.engines.embedded.kv.paged_memory import PagedMemory
from gristmill.engines.embedded.kv.prefix_cache import BlockNode
from gristmill.engines.embedded.scheduling.scheduler import TOKENS_BESIDE, Scheduler
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.scheduling.step_plan import STEP_LOGITS, StepLimits

SIZE = 4


def scheduler_of(blocks: int, step_tokens: int, max_rows: int) -> Scheduler:
    return Scheduler(StepLimits(step_tokens, max_rows), PagedMemory(SIZE, blocks))


class PretendCache:
    """Computes steps and checks each one: a token's KV state may only come after exactly its own prefix."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        #: Per block and offset: the whole prefix up to and including that token.
        self.content: dict[int, dict[int, tuple[int, ...]]] = {}
        self.computed = 0

    def abort(self) -> None:
        """A step that is planned and not computed, but has spoilt all that it was to write."""
        step = self.scheduler.plan()
        for source, target in step.moves:
            self.content[target] = dict(self.content[source])
        for sequence, start, count, _ in step.chunks:
            blocks = self.scheduler.memory.place(sequence)
            for position in range(start, start + count):
                self.content.setdefault(blocks[position // SIZE], {})[position % SIZE] = (-1,)
        self.scheduler.abort(step)
        check_blocks(self.scheduler)

    def step(self) -> list[Sequence]:
        step = self.scheduler.plan()
        assert step.chunks
        for source, target in step.moves:
            self.content[target] = dict(self.content[source])
        total = 0
        for sequence, start, count, samples in step.chunks:
            assert count > 0
            assert samples == (start + count == len(sequence.tokens))
            for position in range(start, start + count):
                block = self.scheduler.memory.place(sequence)[position // SIZE]
                self.content.setdefault(block, {})[position % SIZE] = tuple(sequence.tokens[: position + 1])
            total += count
        for sequence, start, count, _ in step.chunks:
            for position in range(start + count):
                found = self.content[self.scheduler.memory.place(sequence)[position // SIZE]][position % SIZE]
                assert found == tuple(sequence.tokens[: position + 1])
        assert total <= self.scheduler.limits.step_tokens
        self.computed += total
        self.scheduler.advance(step)
        check_blocks(self.scheduler)
        return [chunk.sequence for chunk in step.chunks if chunk.samples]


def check_blocks(scheduler: Scheduler) -> None:
    """Every block is free, in the tree, or one row's own: exactly one of them, and none is lost."""
    memory = scheduler.memory
    assert set(memory._held) == set(scheduler.running)
    free = list(memory.pool._free)
    nodes = tree_nodes(memory.tree.root)
    own = [block for held in memory._held.values() for block in held.blocks[held.published :]]
    cached = [node.block for node in nodes]
    assert sorted(free + own + cached) == list(range(memory.pool.size))
    assert len(nodes) == memory.tree.nodes
    assert sum(node.locks for node in [memory.tree.root, *nodes]) == len(scheduler.running)


def tree_nodes(root: BlockNode) -> list[BlockNode]:
    found = []
    for child in root.children.values():
        found += [child, *tree_nodes(child)]
    return found


def run(cache: PretendCache, outputs: dict[Sequence, int], aborted: Collection[int] = ()) -> None:
    """Until every sequence has generated its number of tokens. The next token depends on the tokens before only.
    ``aborted``: before which steps there is one that is aborted."""
    for number in range(10_000):
        if not cache.scheduler.running and not cache.scheduler.waiting:
            return
        if number in aborted:
            cache.abort()
        for sequence in cache.step():
            extend(cache.scheduler, sequence, outputs)
    raise AssertionError("the scheduler does not come to an end")


def extend(scheduler: Scheduler, sequence: Sequence, outputs: dict[Sequence, int]) -> None:
    sequence.tokens.append(hash(tuple(sequence.tokens)) % 5)
    if len(sequence.tokens) - sequence.prompt_tokens >= outputs[sequence]:
        scheduler.remove(sequence)


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=30)
events = st.lists(
    st.one_of(
        st.tuples(st.just("add"), prompts, st.integers(1, 9)),
        st.tuples(st.just("ask"), prompts, st.integers(1, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("step"), st.just(0), st.just(0)),
        st.tuples(st.just("abort"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(events, st.integers(10, 30), st.integers(1, 40), st.integers(1, 8))
# What an interactive sequence was to begin with is evicted while memory is sought for it.
@example(
    [("add", [0, 1], 5), *(("ask", [0] * count, 5) for count in (2, 1)), ("ask", [0, 0, 1, 0], 5), ("ask", [0] * 5, 1)],
    10,
    6,
    3,
)
def test_no_block_is_lost_or_shared_by_rows_that_differ(events, blocks, step_tokens, max_rows):
    scheduler = scheduler_of(blocks, step_tokens, max_rows)
    cache, outputs = PretendCache(scheduler), {}
    for kind, value, output in events:
        if kind in ("add", "ask"):
            sequence = Sequence(value, interactive=kind == "ask")
            outputs[sequence] = output
            scheduler.add(sequence)
        elif kind == "cancel" and value < len(outputs):
            scheduler.remove(list(outputs)[value])
            check_blocks(scheduler)
        elif kind == "abort" and scheduler.sequences:
            cache.abort()
        elif scheduler.sequences:
            for sequence in cache.step():
                extend(scheduler, sequence, outputs)
    run(cache, outputs)
    check_blocks(scheduler)
    assert scheduler.memory.pool.free + scheduler.memory.tree.nodes == blocks


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(prompts, st.booleans()), min_size=2, max_size=12), st.sets(st.integers(0, 30)))
def test_a_row_gets_the_same_tokens_alone_and_among_others_and_after_preemption_and_aborts(rows, aborted):
    def generate(rows, blocks, aborted=frozenset()):
        scheduler = scheduler_of(blocks, 16, 8)
        sequences = [Sequence(prompt, interactive=asked) for prompt, asked in rows]
        for sequence in sequences:
            scheduler.add(sequence)
        run(PretendCache(scheduler), dict.fromkeys(sequences, 6), aborted)
        return [sequence.tokens for sequence in sequences]

    alone = [generate([row], 100)[0] for row in rows]
    assert generate(rows, 100) == alone
    assert generate(rows, 10) == alone
    assert generate(rows, 100, aborted) == alone
    assert generate(rows, 10, aborted) == alone


def test_preemption_takes_the_youngest_row_and_resumes_it():
    scheduler = scheduler_of(8, 64, 4)
    first, second = Sequence([1] * 9), Sequence([2] * 9)
    for sequence in (first, second):
        scheduler.add(sequence)
    run(PretendCache(scheduler), {first: 12, second: 12})
    assert first.preemptions == 0
    assert second.preemptions > 0
    assert len(second.tokens) == 21


def test_a_shared_prefix_is_computed_once_even_when_all_rows_arrive_together():
    scheduler = scheduler_of(200, 64, 8)
    # The prefix ends in the middle of a block, which is copied rather than computed again.
    prefix = [7] * 42
    rows = [Sequence([*prefix, 100 + i, 1, 2, 3, 4, 5]) for i in range(20)]
    for row in rows:
        scheduler.add(row)
    cache = PretendCache(scheduler)
    run(cache, dict.fromkeys(rows, 1))
    assert rows[0].cached_tokens == 0
    assert [row.cached_tokens for row in rows[1:]] == [42] * 19
    assert cache.computed == 42 + 20 * 6


def test_a_prefill_longer_than_a_step_is_cut_into_chunks_and_followers_wait_for_it():
    scheduler = scheduler_of(200, 10, 8)
    long, follower, other = Sequence([1] * 41), Sequence([1] * 41 + [2]), Sequence([3] * 4)
    for row in (long, follower, other):
        scheduler.add(row)
    cache = PretendCache(scheduler)
    for _ in range(4):
        cache.step()
        assert follower in scheduler.waiting
    run(cache, {long: 2, follower: 1, other: 1})
    assert follower.cached_tokens == 40


def test_a_waiting_row_goes_on_when_its_leader_is_cancelled():
    scheduler = scheduler_of(200, 8, 8)
    leader, follower = Sequence([1] * 40), Sequence([1] * 40)
    scheduler.add(leader)
    scheduler.add(follower)
    cache = PretendCache(scheduler)
    cache.step()
    scheduler.remove(leader)
    run(cache, {follower: 1})
    # What the leader had computed is used all the same.
    assert follower.cached_tokens == 8


def test_several_prefixes_stay_cached_side_by_side_and_the_oldest_is_evicted_first():
    scheduler = scheduler_of(12, 64, 1)
    cache = PretendCache(scheduler)

    def cached(prompt):
        row = Sequence(prompt)
        scheduler.add(row)
        run(cache, {row: 1})
        return row.cached_tokens

    assert cached([1] * 17) == 0
    assert cached([2] * 17) == 0
    assert cached([1] * 17) == 16
    assert cached([2] * 17) == 16
    assert cached([3] * 21) == 0
    # [1] was used longest ago: its tail made room, its beginning is still there.
    assert cached([2] * 17) == 16
    assert cached([1] * 17) < 16


def test_cached_tokens_never_include_the_last_prompt_token():
    scheduler = scheduler_of(50, 64, 8)
    cache = PretendCache(scheduler)
    rows = [Sequence([5] * 16), Sequence([5] * 16)]
    for row in rows:
        scheduler.add(row)
    run(cache, dict.fromkeys(rows, 1))
    assert [row.cached_tokens for row in rows] == [0, 15]


def interactive(prompt: list[int]) -> Sequence:
    return Sequence(prompt, interactive=True)


def test_an_interactive_sequence_is_in_the_next_step_however_many_wait():
    scheduler = scheduler_of(400, 64, 4)
    rows = [Sequence([i] * 30) for i in range(20)]
    for row in rows:
        scheduler.add(row)
    PretendCache(scheduler).step()
    asked = interactive([99] * 10)
    scheduler.add(asked)
    step = scheduler.plan()
    assert step.chunks[0].sequence is asked and step.chunks[0].samples
    # The batch goes on beside it, but costs next to nothing.
    assert 0 < sum(chunk.tokens for chunk in step.chunks[1:]) <= TOKENS_BESIDE


def test_an_interactive_sequence_takes_the_blocks_of_the_youngest_batch_sequence():
    scheduler = scheduler_of(12, 64, 4)
    old, young, asked = Sequence([1] * 16), Sequence([2] * 16), interactive([3] * 20)
    cache, outputs = PretendCache(scheduler), {old: 6, young: 6, asked: 4}
    for row in (old, young):
        scheduler.add(row)
    for sequence in cache.step():
        extend(scheduler, sequence, outputs)
    scheduler.add(asked)
    run(cache, outputs)
    assert young.preemptions > 0
    assert old.preemptions == asked.preemptions == 0


def test_an_interactive_sequence_does_not_wait_at_the_batchs_pace_for_a_prefix_being_computed():
    scheduler = scheduler_of(400, 64, 8)
    leader = Sequence([1] * 400)
    scheduler.add(leader)
    cache = PretendCache(scheduler)
    cache.step()
    asked = interactive([1] * 400 + [2])
    scheduler.add(asked)
    steps = 0
    while asked in scheduler.waiting:
        cache.step()
        steps += 1
    assert steps <= 400 // 64 + 3
    assert asked.cached_tokens == 400


def test_a_long_prefill_neither_stops_those_that_decode_nor_holds_up_interactive_ones():
    scheduler = scheduler_of(400, 64, 8)
    decoding, long, short = interactive([1] * 8), interactive([2] * 600), interactive([3] * 20)
    cache, outputs = PretendCache(scheduler), {decoding: 100, long: 1, short: 1}
    for sequence in (long, decoding):
        scheduler.add(sequence)
    for sequence in cache.step():
        extend(scheduler, sequence, outputs)
    scheduler.add(short)
    for _ in range(2):
        before = len(decoding.tokens)
        for sequence in cache.step():
            extend(scheduler, sequence, outputs)
        assert len(decoding.tokens) == before + 1
    assert len(short.tokens) == 21
    assert long.pending > 0


@pytest.mark.parametrize("blocks", [40, 400])
def test_a_flood_of_interactive_sequences_does_not_stop_the_batch(blocks):
    scheduler = scheduler_of(blocks, 64, 4)
    rows = [Sequence([i] * 40) for i in range(3)]
    for row in rows:
        scheduler.add(row)
    cache, outputs, flood = PretendCache(scheduler), dict.fromkeys(rows, 10), itertools.count(100)
    for _ in range(20_000):
        if not any(row in scheduler.running or row in scheduler.waiting for row in rows):
            break
        while len(scheduler.waiting) < 6:
            asked = interactive([next(flood)] * 60)
            outputs[asked] = 5
            scheduler.add(asked)
        for sequence in cache.step():
            extend(scheduler, sequence, outputs)
    assert [len(row.tokens) for row in rows] == [50] * 3


def test_the_logits_of_a_step_are_bounded():
    scheduler = scheduler_of(4000, 4096, 8)
    rows = [Sequence([i] * 1000, first_wanted=9) for i in range(4)]
    for row in rows:
        scheduler.add(row)
    cache = PretendCache(scheduler)
    while rows[-1] in scheduler.waiting or rows[-1].pending:
        before = {row: row.computed for row in rows}
        cache.step()
        wanted = sum(max(row.computed - max(before[row], 9), 0) for row in rows)
        assert wanted <= STEP_LOGITS
