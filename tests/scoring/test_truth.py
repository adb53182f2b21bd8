from __future__ import annotations

import random

import polars as pl
import pytest

from gristmill.scoring.table import truth_values
from gristmill.scoring.truth import agreement
from gristmill.user_error import UserError

numpy = pytest.importorskip("numpy", reason="pip install 'gristmill[score]' to run this")
stats = pytest.importorskip("scipy.stats", reason="pip install 'gristmill[score]' to run this")


def rows(count: int, noise: float, seed: int = 0) -> tuple[list[float], list[float]]:
    draw = random.Random(seed)
    truths = [float(draw.randrange(11)) for _ in range(count)]
    return [truth + draw.gauss(0, noise) for truth in truths], truths


def measures(scores, truths) -> dict[str, float | None]:
    return {each.name: each.value for each in agreement(scores, truths).measures}


def test_measures_are_those_of_scipy_and_of_counting_pairs():
    scores, truths = rows(200, 3.0)
    scores = [round(score) for score in scores]
    found = measures(scores, truths)
    assert found["Spearman"] == pytest.approx(stats.spearmanr(scores, truths).statistic)
    assert found["Kendall"] == pytest.approx(stats.kendalltau(scores, truths).statistic)
    assert found["mean absolute error"] == pytest.approx(numpy.abs(numpy.array(scores) - truths).mean())
    pairs = [(i, j) for i in range(200) for j in range(200) if truths[i] > truths[j]]
    right = sum(1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0 for i, j in pairs)
    assert found["AUC"] == pytest.approx(right / len(pairs))


def test_intervals_hold_the_value_and_narrow_with_more_rows():
    few, many = (agreement(*rows(count, 3.0)).measures for count in (50, 2_000))
    for one, other in zip(few, many, strict=True):
        assert one.low <= one.value <= one.high
        assert other.high - other.low < one.high - one.low


def test_intervals_hold_the_truth_nineteen_times_of_twenty_or_so():
    long_run = measures(*rows(50_000, 3.0))["Spearman"]
    held = 0
    for seed in range(40):
        spearman = agreement(*rows(100, 3.0, seed + 1)).measures[0]
        held += spearman.low <= long_run <= spearman.high
    assert held >= 34


def test_rows_without_score_or_truth_are_left_out_and_counted():
    found = agreement([1.0, None, 3.0, 2.0, 5.0], [1.0, 2.0, None, 3.0, 4.0])
    assert (found.rows, found.unknown) == (3, 1)


def test_where_no_two_rows_differ_a_correlation_is_undefined():
    found = measures([1.0, 2.0, 3.0], [5.0, 5.0, 5.0])
    assert (found["Spearman"], found["Kendall"], found["AUC"]) == (None, None, None)
    assert found["mean absolute error"] == 3.0
    assert measures([5.0, 5.0, 5.0], [1.0, 2.0, 3.0])["AUC"] == 0.5
    assert agreement([1.0], [1.0]).measures == []


def test_calibration_has_a_tenth_of_the_rows_in_each_bin():
    scores, truths = rows(1_000, 1.0)
    bins = agreement(scores, truths).calibration
    assert [each.rows for each in bins] == [100] * 10
    assert [each.score for each in bins] == sorted(each.score for each in bins)
    assert all(abs(each.score - each.truth) < 1.5 for each in bins)


def test_a_right_score_without_end_is_refused():
    assert truth_values(pl.DataFrame({"t": ["1", "", "nan", None]}), "t") == [1.0, None, None, None]
    with pytest.raises(UserError, match="row 2 .such as 'inf'"):
        truth_values(pl.DataFrame({"t": ["1", "inf"]}), "t")
