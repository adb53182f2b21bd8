from __future__ import annotations

import pytest

from gristmill.scoring.statistics.isotonic import fit_isotonic
from gristmill.scoring.statistics.venn_abers import fit_venn_abers

np = pytest.importorskip("numpy", reason="pip install 'gristmill[score]' to run this")


def by_fitting(scores, truths, weights, score: float) -> float:
    """As it is defined: an isotonic fit with the row as a 0, and one with it as a 1."""
    found = []
    for truth in (0.0, 1.0):
        with_it = (np.append(scores, score), np.append(truths, truth), np.append(weights, weights.mean()))
        found.append(float(fit_isotonic(*with_it)(np.array([score]))[0]))
    return found[1] / (1 - found[0] + found[1])


@pytest.mark.parametrize("digits", [1, 6])
def test_probabilities_are_those_of_two_isotonic_fits_with_the_row_itself(digits):
    draw = np.random.default_rng(digits)
    scores = draw.random(60).round(digits)
    truths, weights = (draw.random(60) < scores).astype(float), draw.integers(1, 4, 60).astype(float)
    fitted = fit_venn_abers(scores, truths, weights)
    for score in (*np.unique(scores), *draw.random(20), -1.0, 2.0):
        expected = by_fitting(scores, truths, weights, float(score))
        assert fitted(np.array([score]))[0] == pytest.approx(expected, abs=1e-12)


def test_few_rows_of_one_kind_are_no_certainty():
    scores, truths = np.arange(8.0), np.array([0.0, 0, 0, 0, 1, 1, 1, 1])
    low, high = fit_venn_abers(scores, truths, np.ones(8))(np.array([0.0, 7.0]))
    assert 0.05 < low < 0.3 and 0.7 < high < 0.95
