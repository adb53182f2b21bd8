"""What is promised of calibrated scores, intervals and statements; 1,000 replays of it: benchmarks/calibration."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from gristmill.scoring.calibration import MEAN, PRECISION, RECALL, SHARE, Aims, Calibration, calibrate
from gristmill.user_error import UserError

np = pytest.importorskip("numpy", reason="pip install 'gristmill[score]' to run this")

ROWS = 2_000


def table(binary: bool = False) -> tuple[object, object]:
    """Scores, many of them equal, of a judge that is too mild; and the truths of all rows."""
    draw = np.random.default_rng(3)
    truths = draw.binomial(10, draw.beta(2, 2, ROWS)).astype(float)
    scores = (np.sqrt(truths / 10) * 10 + draw.normal(0, 1.5, ROWS)).round(1)
    return scores, (truths > 6).astype(float) if binary else truths


def some(truths, count: int, seed: int) -> list[float | None]:
    known = set(np.random.default_rng(seed).choice(len(truths), count, replace=False).tolist())
    return [float(truth) if row in known else None for row, truth in enumerate(truths)]


def said(found: Calibration) -> dict[tuple[str, str | None], object]:
    return {(each.what, each.group): each for each in found.statements}


@pytest.mark.parametrize(("binary", "known"), [(False, 60), (False, 250), (True, 60), (True, 250)])
def test_intervals_hold_what_they_should_nine_times_of_ten(binary, known):
    scores, truths = table(binary)
    aims = Aims(0.9, cut=7.5, truth_cut=1.0 if binary else 7.0)
    above, selected = truths >= aims.truth_cut, scores >= 7.5
    long_run = {
        MEAN: truths.mean(),
        SHARE: above.mean(),
        PRECISION: above[selected].mean(),
        RECALL: selected[above].mean(),
    }
    held, given, rows = Counter(), Counter(), []
    for seed in range(25):
        found = calibrate(scores.tolist(), some(truths, known, seed), aims=aims)
        low, high = np.array(found.low), np.array(found.high)
        rows.append(((low <= truths) & (truths <= high)).mean())
        for each in found.statements:
            if each.estimate is not None:
                given[each.what] += 1
                held[each.what] += each.estimate.low <= long_run[each.what] <= each.estimate.high
    assert np.mean(rows) > 0.88
    for what, count in given.items():
        # Four standard deviations.
        assert held[what] >= 0.9 * count - 4 * (0.09 * count) ** 0.5, what


def test_no_row_has_a_part_in_its_own_score_or_interval():
    for known in (60, 250):
        for binary in (False, True):
            scores, truths = table(binary)
            given = some(truths, known, 0)
            found = calibrate(scores.tolist(), given)
            row = next(place for place, truth in enumerate(given) if truth is not None)
            changed = list(given)
            changed[row] = 1.0 - changed[row] if binary else changed[row] + 1000.0
            again = calibrate(scores.tolist(), changed)
            assert again.calibrated[row] == found.calibrated[row]
            if not binary:
                # Nor has the score's own place between the ends moved them.
                assert (again.low[row], again.high[row]) == (found.low[row], found.high[row])
            assert again.calibrated != found.calibrated


def test_equal_scores_mean_the_same_and_higher_ones_never_less():
    scores, truths = table()
    given = some(truths, 80, 1)
    found = calibrate(scores.tolist(), given)
    unknown = sorted(
        (score, value) for score, value, truth in zip(scores, found.calibrated, given, strict=True) if truth is None
    )
    assert all(low <= high + 1e-9 for (_, low), (_, high) in zip(unknown, unknown[1:], strict=False))
    assert len(dict(unknown)) == len(set(unknown))


def test_rows_without_a_score_have_no_part_in_it():
    scores, truths = table()
    given = some(truths, 80, 1)
    found = calibrate(scores.tolist(), given)
    with_others = calibrate([None, *scores.tolist(), None], [9.0, *given, None])
    assert with_others.calibrated == [None, *found.calibrated, None]
    assert with_others.low[0] is with_others.high[-1] is None
    assert with_others.statements == found.statements
    assert (with_others.rows, with_others.truths) == (ROWS, 80)


def test_too_few_truths_are_told_and_how_many_would_do():
    scores, truths = table()
    found = calibrate(scores.tolist(), some(truths, 19, 1))
    assert found.guarantee is None and not found.statements and set(found.calibrated) == {None}
    assert (found.truths, found.needed) == (19, 20)
    groups = ["many"] * 1_900 + ["few"] * 100
    found = calibrate(scores.tolist(), some(truths, 60, 2), aims=Aims(cut=9.0), by=groups)
    by = said(found)
    assert by[MEAN, None].estimate and by[MEAN, "many"].estimate
    few = by[MEAN, "few"]
    assert few.estimate is None and few.truths < 20 and few.needed == 20
    recall = by[RECALL, None]
    assert recall.estimate is None and recall.truths < 20 and 60 < recall.needed < ROWS


def test_binary_truths_get_probabilities_and_intervals_of_what_can_be():
    scores, truths = table(binary=True)
    found = calibrate(scores.tolist(), some(truths, 100, 1))
    assert found.binary and all(0 < each < 1 for each in found.calibrated)
    assert {*zip(found.low, found.high, strict=True)} <= {(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)}


def test_where_all_known_truths_are_zero_that_is_no_certainty():
    scores, _ = table(binary=True)
    found = calibrate(scores.tolist(), [0.0 if row < 50 else None for row in range(ROWS)])
    estimate = said(found)[MEAN, None].estimate
    assert estimate.value == estimate.low == 0 and 0.03 < estimate.high < 0.1


def test_intervals_end_at_the_bounds_only_where_there_are_some():
    scores, truths = table()
    given = some(truths, 80, 1)
    free = calibrate(scores.tolist(), given)
    bounded = calibrate(scores.tolist(), given, bounds=(0.0, 10.0))
    assert min(free.low) < 0 and max(free.high) > 10
    assert min(bounded.low) == 0 and max(bounded.high) == 10


def test_truths_of_the_best_alone_are_noticed_and_strata_put_it_right():
    scores, truths = table()
    best = set(np.argsort(-scores)[:100].tolist())
    given = [float(truth) if row in best else None for row, truth in enumerate(truths)]
    assert not calibrate(scores.tolist(), given).random
    assert calibrate(scores.tolist(), some(truths, 100, 1)).random
    strata = (scores >= np.median(scores)).astype(int)
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(40):
        known = np.zeros(ROWS, bool)
        for stratum, count in ((0, 30), (1, 130)):
            known[draw.choice(np.flatnonzero(strata == stratum), count, replace=False)] = True
        given = [float(truth) if known[row] else None for row, truth in enumerate(truths)]
        found = calibrate(scores.tolist(), given, strata=strata.tolist())
        assert found.random and found.stratified
        estimate = said(found)[MEAN, None].estimate
        held += estimate.low <= truths.mean() <= estimate.high
    assert held >= 28  # 36, and four standard deviations


@pytest.mark.parametrize(
    ("aims", "message"),
    [
        (Aims(1.0), "0.5 to 0.999"),
        (Aims(0.9, truth_cut=3.0), "--cut"),
        (Aims(0.9, math.nan), "A cut is a number"),
        (Aims(0.9, 5.0, math.inf), "A cut is a number"),
    ],
)
def test_what_makes_no_sense_is_refused(aims, message):
    with pytest.raises(UserError, match=message):
        calibrate([1.0], [1.0], aims=aims)
