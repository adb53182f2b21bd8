from __future__ import annotations

import pytest

from gristmill.scoring.statistics import prediction_powered
from gristmill.scoring.statistics.prediction_powered import Labelled, Predictions
from gristmill.scoring.statistics.strata import sample_of

np = pytest.importorskip("numpy", reason="pip install 'gristmill[score]' to run this")


def table(rows: int, known: int, seed: int = 0) -> tuple[Labelled, object]:
    """Truths with predictions that are off, and not by the same everywhere."""
    draw = np.random.default_rng(seed)
    predicted = draw.normal(5, 2, rows)
    truths = predicted + 1 + draw.normal(0, 1, rows)
    labelled = np.zeros(rows, bool)
    labelled[draw.choice(rows, known, replace=False)] = True
    return Labelled(sample_of(labelled), truths[labelled], Predictions(predicted, predicted[labelled])), labelled


def test_the_interval_of_a_mean_is_that_of_ppi_python():
    ppi = pytest.importorskip("ppi_py", reason="pip install ppi-python to run this")
    rows, labelled = table(300_000, 2_000)
    own = prediction_powered.mean(rows, np.ones(300_000, bool), 0.9)
    of_all = rows.predictions.of_all
    low, high = ppi.ppi_mean_ci(rows.truths, of_all[labelled], of_all[~labelled], alpha=0.1)
    width = float(high[0] - low[0])
    # It is about rows that are drawn anew, and its intervals are normal ones: for so many rows that is little.
    assert own.value == pytest.approx(float(low[0] + high[0]) / 2, abs=0.02 * width)
    assert own.high - own.low == pytest.approx(width, rel=0.03)


def test_predictions_narrow_an_interval_and_useless_ones_hardly_widen_it():
    rows, _ = table(5_000, 300)
    everyone = np.ones(5_000, bool)

    def width(rows: Labelled) -> float:
        found = prediction_powered.mean(rows, everyone, 0.9)
        return found.high - found.low

    noise = np.random.default_rng(1).normal(0, 5, 5_000)
    none = rows._replace(predictions=Predictions(np.zeros(5_000), np.zeros(300)))
    useless = rows._replace(predictions=Predictions(noise, noise[rows.sample.labelled]))
    assert width(rows) < 0.6 * width(none)
    assert width(useless) < 1.02 * width(none)


def test_where_every_row_has_a_truth_nothing_is_left_to_chance():
    rows, _ = table(50, 50)
    everyone = np.ones(50, bool)
    found = prediction_powered.mean(rows, everyone, 0.9)
    assert found.low == pytest.approx(rows.truths.mean()) and found.high == pytest.approx(rows.truths.mean())
    above = rows._replace(truths=(rows.truths > 6).astype(float))
    selected = rows.predictions.of_all > 6
    found = prediction_powered.recall(above, selected, everyone, 0.9)
    assert found.low == found.high == pytest.approx(selected[above.truths == 1].mean())


def test_a_share_of_none_or_all_has_a_width():
    rows, _ = table(5_000, 40)
    for truth in (0.0, 1.0):
        found = prediction_powered.share(rows._replace(truths=np.full(40, truth)), np.ones(5_000, bool), 0.9)
        assert found.value == pytest.approx(truth, abs=0.1)
        assert 0 <= found.low <= found.high <= 1 and found.high - found.low > 0.04


def test_strata_are_weighted_as_they_were_sampled():
    """Of the high scores ten times as many are labelled: their mean alone would be far too high."""
    draw = np.random.default_rng(0)
    truths = np.sort(draw.normal(5, 2, 4_000))
    strata = np.repeat([1, 2], 2_000)
    held = 0
    for _ in range(200):
        labelled = np.zeros(4_000, bool)
        labelled[draw.choice(2_000, 20, replace=False)] = True
        labelled[2_000 + draw.choice(2_000, 200, replace=False)] = True
        sample, nothing = sample_of(labelled, strata), Predictions(np.zeros(4_000), np.zeros(220))
        found = prediction_powered.mean(Labelled(sample, truths[labelled], nothing), np.ones(4_000, bool), 0.9)
        held += found.low <= truths.mean() <= found.high
    assert 165 <= held <= 196  # 180, and four standard deviations


def test_strata_with_too_few_truths_go_with_their_neighbours():
    labelled = np.array([1, 1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0], bool)
    sample = sample_of(labelled, np.repeat([1, 2, 3, 4], 3))
    assert sample.stratum.tolist() == [0] * 3 + [1] * 6 + [2] * 3
    assert sample.rows.tolist() == [3, 6, 3] and sample.taken.tolist() == [2, 2, 2]
    assert sample_of(labelled, np.repeat([4, 4, 7, 9], 3)).rows.tolist() == [6, 6]
    alone = sample_of(np.array([1, 0, 0], bool), np.array([1, 2, 3]))
    assert alone.stratum.tolist() == [0, 0, 0]
