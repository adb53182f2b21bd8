from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.embedded.label_scoring import ROOT, LabelTrie

TOKENS = 4
labels = st.lists(
    st.lists(st.integers(0, TOKENS - 1), min_size=1, max_size=4).map(tuple), min_size=1, max_size=12, unique=True
)


def distribution(path: tuple[int, ...]) -> list[float]:
    """A made-up model: what comes after ``path`` depends on nothing else."""
    chance = random.Random(hash(path))
    weights = [chance.random() + 0.01 for _ in range(TOKENS)]
    return [weight / sum(weights) for weight in weights]


def tokens(trie: LabelTrie, node: int) -> tuple[int, ...]:
    return tuple(map(trie.token, trie.path(node)))


def scored(given_labels: list[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
    trie = LabelTrie([list(label) for label in given_labels])
    logprobs = {
        child: math.log(distribution(tokens(trie, node))[token])
        for node, children in trie.children.items()
        for token, child in children.items()
    }
    return dict(zip(given_labels, map(math.exp, trie.score(logprobs)), strict=True))


@given(labels)
def test_probabilities_are_those_of_the_longest_label_the_output_starts_with(found: list[tuple[int, ...]]) -> None:
    longest = max(len(label) for label in found)
    expected = dict.fromkeys(found, 0.0)

    def walk(path: tuple[int, ...], probability: float) -> None:
        if len(path) < longest:
            for token, chance in enumerate(distribution(path)):
                walk((*path, token), probability * chance)
            return
        starts = [path[:length] for length in range(longest, 0, -1) if path[:length] in expected]
        if starts:
            expected[starts[0]] += probability

    walk((), 1.0)
    for label, probability in scored(found).items():
        # The longest is meant along the trie: a label only gives way to a continuation that some label takes next.
        assert probability <= expected[label] + 1e-9 or any(
            other[: len(label)] == label and len(other) > len(label) + 1 for other in found
        )
    assert sum(scored(found).values()) <= 1 + 1e-9


@given(labels)
def test_the_probes_cover_every_node_whose_logits_are_needed(found: list[tuple[int, ...]]) -> None:
    trie = LabelTrie([list(label) for label in found])
    assert {node for probe in trie.probes() for node in [ROOT, *trie.path(probe)]} == set(trie.children)


def test_ten_is_not_counted_for_one() -> None:
    one, ten = scored([(1,), (1, 0)])[(1,)], scored([(1,), (1, 0)])[(1, 0)]
    assert one + ten == pytest.approx(distribution(())[1])
    assert ten == pytest.approx(distribution(())[1] * distribution((1,))[0])


@pytest.mark.parametrize("bad", [[[]], [[1], [1]]])
def test_labels_that_cannot_be_told_apart_are_refused(bad: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="label"):
        LabelTrie(bad)
