"""How far answers are from the same rows answered alone."""

from __future__ import annotations

import pytest

from gristmill.bench.drift import drift, kendall_tau
from gristmill.bench.session import RowResult, number_in


def results(*texts: str) -> list[RowResult]:
    return [RowResult(row, 0.0, text, number_in(text)) for row, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        # By hand: of 6 pairs 5 agree and 1 does not.
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),
        # With ties, as scipy.stats.kendalltau gives it.
        ([12, 2, 1, 12, 2], [1, 4, 7, 1, 0], -0.47140452079103173),
    ],
)
def test_kendall_tau_is_tau_b(first, second, tau):
    assert kendall_tau(first, second) == pytest.approx(tau)


def test_kendall_tau_is_not_defined_where_all_scores_are_alike():
    assert kendall_tau([3, 3, 3], [1, 2, 3]) is None
    assert kendall_tau([], []) is None


def test_the_same_answers_have_not_drifted():
    found = drift(results("7", '{"score":3}', "none"), results("7", "3", " none "))
    assert found is not None
    assert (found.rows, found.scored, found.score_difference, found.changed) == (3, 2, 0.0, 0.0)


def test_changed_scores_are_measured():
    found = drift(results("8", "3", "5"), results("6", "3", "4"))
    assert found is not None
    assert found.score_difference == 1.0
    assert found.changed == pytest.approx(2 / 3, abs=1e-4)
    # 8 > 5 > 3 against 6 > 4 > 3: the order is the same.
    assert found.kendall_tau == 1.0


def test_a_mean_of_label_scores_is_compared_as_a_score_but_changed_by_its_best_label():
    labels = [RowResult(0, 0.0, "7", 6.6), RowResult(1, 0.0, "2", 2.9)]
    found = drift(labels, results("7", "3"))
    assert found is not None
    assert found.score_difference == pytest.approx(0.25)
    assert found.changed == 0.5


def test_a_hyphen_is_no_minus():
    assert [number_in(text) for text in ("score-8", "-3", "it is -2.5", "none")] == [8.0, -3.0, -2.5, None]


def test_failed_rows_are_left_out():
    answers = [RowResult(0, 0.0, error="broken"), *results("1", "2")[1:]]
    found = drift(answers, results("9", "2"))
    assert found is not None
    assert (found.rows, found.changed) == (1, 0.0)
    assert drift([RowResult(0, 0.0, error="broken")], results("1")) is None
