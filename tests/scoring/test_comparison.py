"""Two models' scores of the same rows: what is counted, and the statistics against SciPy, scikit-learn and replays."""

from __future__ import annotations

import pytest

from gristmill.scoring.outcome import Outcome

numpy = pytest.importorskip("numpy", reason="pip install 'gristmill[score]' to run this")
stats = pytest.importorskip("scipy.stats", reason="pip install 'gristmill[score]' to run this")

from gristmill.scoring.comparison import Scored, compared  # noqa: E402 - behind what may be missing
from gristmill.scoring.statistics.kappa import kappa  # noqa: E402
from gristmill.scoring.statistics.mean_difference import mean_difference  # noqa: E402
from gristmill.scoring.statistics.proportion import proportion  # noqa: E402
from gristmill.scoring.statistics.rank_correlation import _out_of_order, rank_correlation  # noqa: E402


def pairs(*scores: tuple[float | None, float | None]) -> list[Scored]:
    def outcome(score: float | None) -> Outcome:
        return Outcome("labels", score, None if score is None else f"{score:.0f}")

    return [Scored(row, f"id {row}", outcome(a), outcome(b)) for row, (a, b) in enumerate(scores)]


def test_rows_are_counted_by_who_scored_them_and_where_the_cut_puts_them():
    same = [(float(each), float(each)) for each in range(10)]
    found = compared("craft", pairs(*same, (2.0, 7.5), (6.0, 5.0), (None, 1.0), (1.0, None), (None, None)), 5.0, 0.9)
    assert found is not None
    assert (found.rows, found.only_a, found.only_b, found.neither) == (12, 1, 1, 1)
    assert found.labels_differ.value == pytest.approx(2 / 12)
    assert found.difference.value == pytest.approx(4.5 / 12)
    cut = found.at_cut
    assert cut is not None and (cut.both, cut.only_a, cut.only_b, cut.neither) == (6, 0, 1, 5)
    assert cut.agreement.value == pytest.approx(11 / 12)
    assert [(each.id, each.a, each.b) for each in found.changes[:3]] == [
        ("id 10", 2.0, 7.5), ("id 11", 6.0, 5.0), ("id 0", 0.0, 0.0)
    ]  # fmt: skip


def test_of_fewer_than_ten_rows_with_both_scores_nothing_is_said():
    assert compared("score", pairs(*[(1.0, 2.0)] * 9, (None, 2.0)), None, 0.9) is None
    found = compared("score", pairs(*[(1.0, 2.0)] * 10), 9.0, 0.9)
    assert found is not None and found.rank_correlation is None
    assert found.at_cut is not None and found.at_cut.kappa is None


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (10, 10), (1, 10), (37, 100), (4999, 5000)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(hits: int, rows: int):
    found = proportion(hits, rows, 0.9)
    right = stats.binomtest(hits, rows).proportion_ci(0.9, "exact")
    assert (found.low, found.high) == pytest.approx((right.low, right.high))


def test_the_interval_of_a_mean_difference_is_that_of_paired_scores():
    draw = numpy.random.default_rng(1)
    one = draw.normal(size=40)
    other = one + draw.normal(0.3, 1, size=40)
    found = mean_difference(one, other, 0.95)
    right = stats.ttest_rel(other, one).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((right.low, right.high))
    assert found.value == pytest.approx((other - one).mean())


def test_kappa_is_cohens():
    metrics = pytest.importorskip("sklearn.metrics", reason="pip install 'gristmill[score]' to run this")
    draw = numpy.random.default_rng(2)
    for share in (0.5, 0.05):
        one, flip = draw.random(200) < share, draw.random(200) < 0.1
        assert kappa(one, one ^ flip) == pytest.approx(metrics.cohen_kappa_score(one, one ^ flip))


def test_the_rank_correlation_is_spearmans_and_its_interval_is_around_it():
    draw = numpy.random.default_rng(3)
    for noise in (0.001, 0.1, 1.0, 10.0):
        one = draw.normal(size=80)
        other = numpy.round(one + noise * draw.normal(size=80), 1)
        found = rank_correlation(one, other, 0.9)
        assert found is not None
        assert found.value == pytest.approx(stats.spearmanr(one, other).statistic)
        assert -1 <= found.low <= found.value <= found.high <= 1
        turned = rank_correlation(one, -other, 0.9)
        assert turned is not None and turned.value == pytest.approx(-found.value)


def test_pairs_that_are_out_of_order_are_counted_with_ties():
    draw = numpy.random.default_rng(4)
    one, other = draw.integers(0, 6, 50), draw.integers(0, 6, 50)
    right = sum((one[i] - one[j]) * (other[i] - other[j]) < 0 for i in range(50) for j in range(i))
    assert _out_of_order(one.astype(float), other.astype(float)) == right


def test_rows_that_are_all_in_the_same_order_do_not_promise_as_much_of_all_others():
    rows = numpy.arange(30.0)
    found, more = rank_correlation(rows, 2 * rows, 0.9), rank_correlation(numpy.arange(300.0), numpy.arange(300.0), 0.9)
    assert found is not None and more is not None
    assert found.value == pytest.approx(1.0) and found.high == 1.0
    assert found.low < more.low < 1.0


@pytest.mark.parametrize("noise", [0.03, 0.15, 1.0])
def test_nine_of_ten_intervals_hold_the_correlation_of_all_rows(noise: float):
    """Also where it is near 1, as that of a quantized model's scores is: an interval by Fisher's or Bonett and Wright's
    formula held it in 31 to 82 of 100 samples there."""
    draw = numpy.random.default_rng(5)
    # Of two normals, Spearman's correlation follows from Pearson's.
    true = 6 / numpy.pi * numpy.arcsin(1 / numpy.sqrt(1 + noise**2) / 2)
    held = 0
    for _ in range(60):
        one = draw.normal(size=40)
        found = rank_correlation(one, one + noise * draw.normal(size=40), 0.9)
        assert found is not None
        held += found.low <= true <= found.high
    # 0.9 of 60, less three standard deviations.
    assert held >= 47
