"""Which inputs share a step: the oldest always, interactive ones first, and no more than fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.embedded.embeddings.embedding import EmbeddingTask
from gristmill.engines.embedded.embeddings.embedding_step import WaitingInput, next_inputs
from gristmill.engines.embedded.embeddings.shortest_decimals import shortest_decimals
from gristmill.engines.errors import EngineError


def waiting(lengths: list[int], interactive: bool = False) -> list[WaitingInput]:
    task = EmbeddingTask(1, "m", [[0] * length for length in lengths], None, True, interactive)
    return [WaitingInput(task, place) for place in range(len(lengths))]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200), st.integers(1, 16), st.booleans())
def test_a_step_has_the_oldest_input_and_fits_its_limits(
    lengths: list[int], most_tokens: int, rows: int, padded: bool
) -> None:
    taken = next_inputs(waiting(lengths), most_tokens, rows, padded)
    assert 0 in [each.place for each in taken]
    assert len({each.place for each in taken}) == len(taken) <= rows
    sizes = [len(each.tokens) for each in taken]
    cost = max(sizes) * len(sizes) if padded else sum(sizes)
    assert cost <= most_tokens or len(taken) == 1


def test_every_input_has_its_turn() -> None:
    left = waiting([30, 1, 1, 1, 29, 2, 60])
    steps: list[list[int]] = []
    while left:
        taken = next_inputs(left, 60, 8, padded=True)
        steps.append(sorted(each.place for each in taken))
        left = [each for each in left if each not in taken]
    assert sorted(place for step in steps for place in step) == list(range(7))
    # Of about the same length together: padding is computed, too.
    assert steps[0] == [0, 4]


def test_interactive_inputs_do_not_wait_for_a_batchs() -> None:
    batch, asked = waiting([5] * 10), waiting([5], interactive=True)
    assert next_inputs([*batch, *asked], 1000, 64, padded=True) == asked


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20))
def test_numbers_are_those_of_float32_in_few_digits(numbers: list[float]) -> None:
    given_ = np.array(numbers, np.float32)
    found = shortest_decimals(given_)
    assert np.array_equal(np.array(found, np.float32), given_)


def test_a_number_has_no_more_digits_than_tell_it_apart() -> None:
    given_ = np.array([0.1, -0.25, 0.0, 1.0, 0.012345678, 1e-10], np.float32)
    assert shortest_decimals(given_) == [0.1, -0.25, 0.0, 1.0, 0.012345678, 1e-10]


def test_a_vector_that_is_no_number_is_its_requests_failure() -> None:
    task = EmbeddingTask(1, "m", [[1]], None, True, False)
    with pytest.raises(EngineError, match="not a number"):
        task.note(0, np.array([1.0, np.inf], np.float32))


def test_a_vector_cut_short_has_length_1_again() -> None:
    task = EmbeddingTask(1, "m", [[1, 2]], 2, True, False)
    task.note(0, np.array([3.0, 4.0, 12.0], np.float32))
    assert task.done
    embeddings = task.embeddings()
    assert embeddings.vectors == [[0.6, 0.8]]
    assert embeddings.prompt_tokens == 2
