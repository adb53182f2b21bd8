"""The scheduler with forked memory, against cells as llama.cpp has them: each token's attention sees its own only."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines.embedded.kv.fork_tree import ForkNode
from gristmill.engines.embedded.kv.forked_memory import PATIENCE, ForkedMemory
from gristmill.engines.embedded.scheduling.scheduler import Scheduler
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.scheduling.step_plan import Chunk, StepLimits
from llama_cells import Cells


class Driver:
    def __init__(
        self,
        cells: int,
        ids: int,
        partial: bool = True,
        step_tokens: int = 64,
        max_rows: int = 8,
        window: int = 0,
    ) -> None:
        self.memory = ForkedMemory(cells, ids, partial, rent=100, window=window)
        self.memory.grain = 4
        self.scheduler = Scheduler(StepLimits(step_tokens, max_rows), self.memory)
        self.cells = Cells(cells, ids, partial, window)
        self.computed = 0
        self.begun: set[Sequence] = set()
        self.outputs: dict[Sequence, int] = {}

    def add(self, prompt: list[int], output: int = 1, interactive: bool = False) -> Sequence:
        sequence = Sequence(prompt, interactive=interactive)
        self.outputs[sequence] = output
        self.scheduler.add(sequence)
        return sequence

    def plan(self) -> list[Chunk]:
        step = self.scheduler.plan()
        assert step.chunks
        self.cells.move(step.moves)
        self.check()
        assert sum(chunk.tokens for chunk in step.chunks) <= self.scheduler.limits.step_tokens
        for sequence, start, count, samples in step.chunks:
            assert samples == (start + count == len(sequence.tokens))
            if sequence not in self.begun:
                assert sequence.cached_tokens == start <= sequence.reusable
                self.begun.add(sequence)
            assert len(self.cells.of(self.memory.place(sequence))) == start
        self._step = step
        return step.chunks

    def abort(self, written: int) -> None:
        """Plan a step that writes no more than its first tokens, and wrong ones."""
        for sequence, start, count, _ in self.plan():
            for position in range(start, start + min(count, written)):
                self.cells.write(self.memory.place(sequence), position, (-1,))
            written -= min(count, written)
        self.scheduler.abort(self._step)

    def step(self) -> None:
        """Compute one step; sequences that have got all of their tokens end."""
        for sequence, start, count, _ in self.plan():
            place = self.memory.place(sequence)
            for position in range(start, start + count):
                self.cells.write(place, position, tuple(sequence.tokens[: position + 1]))
            expected = [tuple(sequence.tokens[: position + 1]) for position in range(start + count)]
            assert self.cells.of(place) == expected
            self.computed += count
        self.scheduler.advance(self._step)
        for sequence, _, _, samples in self._step.chunks:
            if samples:
                sequence.tokens.append(hash(tuple(sequence.tokens)) % 5)
                if len(sequence.tokens) - sequence.prompt_tokens >= self.outputs[sequence]:
                    self.scheduler.remove(sequence)

    def run(self) -> None:
        for _ in range(10_000):
            if not self.scheduler.sequences:
                self.cells.move(self.memory.take_moves())
                self.check()
                return
            self.step()
        raise AssertionError("the scheduler does not come to an end")

    def check(self) -> None:
        """The account is that of the cells, to the cell."""
        memory = self.memory
        assert set(memory._held) == set(self.scheduler.running)
        assert sorted([*memory._free_ids, *memory._kept, *(held.place for held in memory._held.values())]) == list(
            range(self.cells.ids)
        )
        nodes = list(walk(memory._root))
        assert len(self.cells.used) == sum(len(node.tokens) for node in nodes)
        reserved = sum(held.room - held.node.end for held in memory._held.values())
        assert memory._free_cells == self.cells.count - len(self.cells.used) - reserved >= 0
        for node in nodes:
            assert node.children or node.holder is not None
            assert node.holder is None or len(self.cells.of(node.holder)) == node.end
        used = {each for cell in self.cells.used for each in cell.ids}
        assert not used & set(memory._free_ids)


def walk(node: ForkNode) -> Iterable[ForkNode]:
    for child in node.children:
        yield child
        yield from walk(child)


#: Whether sequences can be forked anywhere as far as the state goes, and the window.
kinds = st.sampled_from([(True, 0), (False, 0), (True, 3), (True, 8)])
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=30)
events = st.lists(
    st.one_of(
        st.tuples(st.just("add"), prompts, st.integers(1, 9)),
        st.tuples(st.just("ask"), prompts, st.integers(1, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("step"), st.just(0), st.just(0)),
        st.tuples(st.just("abort"), st.just(0), st.integers(0, 40)),
    ),
    max_size=60,
)


@settings(max_examples=500, deadline=None)
@given(events, st.integers(40, 120), st.integers(2, 12), kinds, st.integers(1, 40), st.integers(1, 8))
def test_every_token_attends_to_its_own_sequence_and_nothing_is_lost(events, cells, ids, kind, step_tokens, max_rows):
    partial, window = kind
    driver = Driver(cells, ids, partial, step_tokens, max_rows, window)
    for event, value, number in events:
        if event in ("add", "ask"):
            driver.add(value, number, interactive=event == "ask")
        elif event == "cancel" and value < len(driver.outputs):
            driver.scheduler.remove(list(driver.outputs)[value])
        elif event == "abort" and driver.scheduler.sequences:
            driver.abort(number)
        elif driver.scheduler.sequences:
            driver.step()
    driver.run()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(prompts, st.booleans()), min_size=2, max_size=12), kinds, st.integers(2, 9))
def test_rows_get_the_same_tokens_alone_and_among_others_and_after_preemption(rows, kind, ids):
    def generate(rows, cells):
        driver = Driver(cells, ids, kind[0], step_tokens=16, window=kind[1])
        sequences = [driver.add(prompt, 6, asked) for prompt, asked in rows]
        driver.run()
        return [sequence.tokens for sequence in sequences]

    alone = [generate([row], 100)[0] for row in rows]
    assert generate(rows, 400) == alone
    assert generate(rows, 40) == alone


def every(test):
    return pytest.mark.parametrize(
        ("partial", "window"), [(True, 0), (False, 0), (True, 8)], ids=["attention", "recurrent", "window"]
    )(test)


@every
def test_a_shared_beginning_is_computed_once_and_rows_behind_it_leave_nothing(partial, window):
    driver = Driver(400, 64, partial, window=window)
    prefix = [7] * 42
    rows = [driver.add([*prefix, 100 + i, 1, 2, 3, 4, 5]) for i in range(20)]
    driver.run()
    assert [row.cached_tokens for row in rows] == [0] + [42] * 19
    assert driver.computed == 42 + 20 * 6
    assert len(driver.cells.used) == 42


@every
def test_prefixes_within_prefixes_are_computed_once_each(partial, window):
    driver = Driver(1000, 64, partial, step_tokens=50, window=window)
    rubric = [7] * 42
    documents = [[rubric_token + 10 + i for rubric_token in rubric] for i in range(3)]
    for document in documents:
        for question in range(5):
            driver.add([*rubric, *document, 100 + question, 1])
    driver.run()
    assert driver.computed == 42 + 3 * 42 + 15 * 2
    assert [row.cached_tokens for row in driver.outputs] == [0, 84, 84, 84, 84, 42, 84, 84, 84, 84, 42, 84, 84, 84, 84]


def test_a_row_begins_with_what_a_running_one_has_computed_however_far_that_is():
    driver = Driver(400, 8, step_tokens=12)
    long, follower = driver.add([1] * 41), driver.add([1] * 41 + [2])
    for _ in range(3):
        driver.step()
        assert follower in driver.scheduler.waiting
    driver.run()
    assert (long.cached_tokens, follower.cached_tokens) == (0, 41)


def test_a_waiting_row_goes_on_with_what_its_cancelled_leader_had_computed():
    driver = Driver(400, 8, step_tokens=8)
    leader, follower = driver.add([1] * 40), driver.add([1] * 40)
    driver.step()
    driver.scheduler.remove(leader)
    driver.run()
    assert follower.cached_tokens == 8


def test_a_chat_goes_on_where_it_ended_and_others_behind_the_same_beginning_do_not_disturb_it():
    driver = Driver(1000, 64)
    system = [7] * 20
    chats = [driver.add([*system, 10 + i, 1], 30, interactive=True) for i in range(3)]
    driver.run()
    again = [driver.add([*chat.tokens, 8, 9], 30, interactive=True) for chat in chats]
    driver.run()
    # All but the last token of each answer, which nobody has computed.
    assert [row.cached_tokens for row in again] == [len(chat.tokens) - 1 for chat in chats]


def test_an_idle_beginning_goes_when_computing_for_others_has_walked_it_long_enough():
    def held_after(others: int, interactive: bool) -> int:
        driver = Driver(1000, 64)
        driver.add([7] * 30, interactive=interactive)
        driver.run()
        driver.add([1] * others)
        driver.run()
        return sum(cell.content[0] == 7 for cell in driver.cells.used)

    assert held_after(PATIENCE * 30, interactive=False) == 30
    assert held_after(PATIENCE * 30 + 1, interactive=False) == 0
    # Rent of 100 and half of its own cells.
    assert held_after(115, interactive=True) == 30
    assert held_after(116, interactive=True) == 0


def test_what_was_kept_of_a_recurrent_row_stays_while_rows_behind_it_run():
    driver = Driver(1000, 8, partial=False)
    prefix = [7] * 40
    for i in range(2):
        driver.add([*prefix, i, i, i], 300)
    for _ in range(250):
        driver.step()
    late = driver.add([*prefix, 5, 5, 5])
    driver.run()
    assert late.cached_tokens == 40


def test_a_short_step_behind_a_kept_beginning_can_be_given_up_whatever_the_window():
    driver = Driver(1000, 8, window=16)
    prefix = [7] * 40
    for i in range(3):
        driver.add([*prefix, i, i, i], 10)
    assert driver.plan() and not driver.scheduler.abortable(driver._step)
    driver.scheduler.abort(driver._step)
    for _ in range(3):
        driver.step()
    for _ in range(3):
        assert driver.plan() and driver.scheduler.abortable(driver._step)
        driver.scheduler.abort(driver._step)
        driver.step()
    assert all(row.preemptions <= 1 for row in driver.outputs)
    driver.run()


@every
def test_a_beginning_that_is_met_for_the_second_time_is_there_for_the_third(partial, window):
    driver = Driver(1000, 16, partial, window=window)
    system = [7] * 40
    known = []
    for i in range(4):
        asked = driver.add([*system, *[100 + i] * 5], interactive=True)
        driver.run()
        known.append(asked.cached_tokens)
    assert known == ([0, 40, 40, 40] if partial and not window else [0, 0, 40, 40])


def test_rows_that_share_nothing_leave_no_more_than_a_few_rows_behind():
    driver = Driver(4000, 64, max_rows=4)
    for i in range(200):
        driver.add([i] * 20)
    most = 0
    while driver.scheduler.sequences:
        driver.step()
        most = max(most, len(driver.cells.used))
    assert most <= (4 + PATIENCE + 4) * 20


def test_more_rows_than_ids_run_as_ids_become_free():
    driver = Driver(4000, 4, max_rows=64)
    prefix = [7] * 40
    rows = [driver.add([*prefix, i, i], 5) for i in range(30)] + [driver.add([100 + i] * 10, 5) for i in range(30)]
    driver.run()
    assert [row.cached_tokens for row in rows[1:30]] == [40] * 29
    assert all(row.preemptions == 0 for row in rows)


@every
@pytest.mark.parametrize("ids", [2, 64])
def test_somebody_who_waits_takes_the_cells_or_the_id_of_the_youngest_row(partial, window, ids):
    driver = Driver(48, ids, partial, window=window)
    rows = [driver.add([i] * 16, 6) for i in range(2)]
    driver.step()
    asked = driver.add([9] * 20, 4, interactive=True)
    assert any(chunk.sequence is asked for chunk in driver.plan())
    driver.scheduler.abort(driver._step)
    driver.run()
    assert sum(row.preemptions for row in rows) > 0
    assert not partial or window or asked.preemptions == 0


def test_a_row_that_had_to_wait_computes_only_again_what_was_taken_from_it():
    driver = Driver(60, 8)
    rows = [driver.add([i] * 20, 20) for i in range(2)]
    driver.run()
    assert rows[1].preemptions > 0
    # Both and what they got, and cells that the first took from the second one by one.
    assert driver.computed < 2 * 39 + 40


def test_what_an_aborted_step_has_left_is_forgotten_before_the_next():
    driver = Driver(400, 8)
    driver.add([7] * 30, 5)
    driver.add([7] * 20 + [8] * 10, 5)
    for written in (0, 3, 100, 1, 100):
        driver.abort(written)
        driver.step()
    driver.run()


def test_recurrent_rows_of_an_aborted_step_begin_again_from_what_was_kept():
    driver = Driver(400, 8, partial=False)
    prefix = [7] * 40
    rows = [driver.add([*prefix, i, i, i], 5) for i in range(3)]
    for _ in range(3):
        driver.step()
    driver.abort(2)
    assert not driver.scheduler.running
    computed = driver.computed
    driver.run()
    assert driver.computed - computed < 40
    assert all(len(row.tokens) == 48 for row in rows)


@pytest.mark.parametrize("cells", [200, 2000])
def test_a_flood_of_interactive_sequences_does_not_stop_the_batch(cells):
    driver = Driver(cells, 16, max_rows=4)
    rows = [driver.add([i] * 40, 10) for i in range(3)]
    number = 100
    for _ in range(20_000):
        if all(len(row.tokens) == 50 for row in rows):
            break
        while len(driver.scheduler.waiting) < 6:
            number += 1
            driver.add([number] * 60, 5, interactive=True)
        driver.step()
    assert [len(row.tokens) for row in rows] == [50] * 3
