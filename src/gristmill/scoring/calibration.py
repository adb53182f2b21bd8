"""Scores on the scale of their truths, and what can be said of a whole table, where some of its rows have a truth.

Pure; needs the extra ``score``. What is estimated how: docs/explanation/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gristmill.extras import require
from gristmill.scoring.statistics import prediction_powered
from gristmill.scoring.statistics.conformal import Guarantee, Intervals, intervals
from gristmill.scoring.statistics.isotonic import cross_fit
from gristmill.scoring.statistics.prediction_powered import Estimate, Labelled, Predictions
from gristmill.scoring.statistics.representative import looks_random
from gristmill.scoring.statistics.strata import Sample, sample_of
from gristmill.scoring.statistics.venn_abers import fit_venn_abers, map_fitter
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Truths that a statement rests on, at the least.
LEAST_TRUTHS = 20
#: Of them on each side of the cut of the score, for recall.
_LEAST_EACH = 10
#: Groups that are told apart at most.
MOST_GROUPS = 100
MEAN, SHARE, PRECISION, RECALL = "mean", "share", "precision", "recall"


class Aims(NamedTuple):
    """``confidence`` of all intervals. ``cut``: rows from this score on are selected, and right if their truth is
    ``truth_cut`` or more (None: as much as ``cut``; 1 where truths are 0 or 1)."""

    confidence: float = 0.9
    cut: float | None = None
    truth_cut: float | None = None


class Statement(NamedTuple):
    """About the rows with a score of a ``group``, or of the whole table (None): their mean truth, the share whose truth
    is above the cut, and precision and recall of selecting by score.

    ``truths``: rows with a truth that it rests on: for precision selected ones, for recall those above the cut. Without
    an ``estimate`` they are too few: ``needed`` truths in all of the group would be about enough (None: none that
    counts was found, so that nobody can tell)."""

    what: str
    group: str | None
    rows: int
    truths: int
    estimate: Estimate | None
    needed: int | None


class Calibration(NamedTuple):
    """By row: the ``calibrated`` score, ``low`` and ``high`` end of the prediction interval; None where the row has no
    score, or an end cannot be told. ``rows`` have a score; ``truths`` of them a truth, too.

    ``binary``: all truths are 0 or 1, so that the calibrated score is a probability, and an interval is 0 to 0, 1 to 1
    or, where neither can be ruled out, 0 to 1. ``random``: whether the rows with a truth look like a random sample.
    ``stratified``: whether they were drawn by stratum. ``guarantee`` is None, and there are no calibrated scores, where
    the truths are too few: ``needed`` would do."""

    aims: Aims
    rows: int
    truths: int
    needed: int
    binary: bool
    random: bool
    stratified: bool
    guarantee: Guarantee | None
    calibrated: list[float | None]
    low: list[float | None]
    high: list[float | None]
    statements: list[Statement]


def calibrate(
    scores: Sequence[float | None],
    truths: Sequence[float | None],
    *,
    aims: Aims = Aims(),  # noqa: B008 - immutable
    by: Sequence[object] | None = None,
    strata: Sequence[int | None] | None = None,
    bounds: tuple[float, float] | None = None,
) -> Calibration:
    """One score and at most one truth a row; ``by`` is each row's group.

    The rows with a truth must be a random sample of those with a score, or of each of the ``strata`` (numbers, in the
    order of the scores). ``bounds``: no truth lies beyond them. Raises UserError.
    """
    numpy = require("numpy", "score")
    check_aims(aims)
    score = numpy.array([math.nan if each is None else each for each in scores], float)
    known = ~numpy.isnan(score)
    score = score[known]
    truth = numpy.array([math.nan if each is None else each for each in truths], float)[known]
    labelled = ~numpy.isnan(truth)
    values = truth[labelled]
    binary = is_binary(values)
    found = Calibration(
        aims, len(score), len(values), LEAST_TRUTHS, binary, True, strata is not None, None, *_columns(known), []
    )
    if len(values) < LEAST_TRUTHS:
        return found
    layers = numpy.array(strata, dtype=object)[known].astype(int) if strata is not None else None
    sample = sample_of(labelled, layers)
    draw = numpy.random.default_rng(0)
    own, weights = score[labelled], sample.weights
    fit = cross_fit(own, values, weights, draw, map_fitter(binary))
    predictions = Predictions(fit.of_others(score), fit.of_labelled(own))
    calibrated = predictions.of_all.copy()
    calibrated[sample.labelled] = predictions.of_labelled
    everyone = (sample.rows / sample.taken)[sample.stratum]
    reach = intervals(score, sample.labelled, values, everyone, fit, aims.confidence, draw, binary)
    low, high = _ends(reach, calibrated, binary, bounds)
    groups = numpy.array([str(each) for each in by], dtype=object)[known] if by is not None else None
    statements = list(_statements(sample, score, values, predictions, binary, aims, groups, draw))
    return found._replace(
        random=looks_random(sample, score),
        guarantee=reach.guarantee,
        calibrated=_spread(known, calibrated),
        low=_spread(known, low),
        high=_spread(known, high),
        statements=statements,
    )


def check_aims(aims: Aims) -> None:
    """Raises UserError."""
    if not 0.5 <= aims.confidence <= 0.999:
        raise UserError(f"A confidence of {aims.confidence:g} is not from 0.5 to 0.999: 0.9 is usual.")
    if any(cut is not None and not math.isfinite(cut) for cut in (aims.cut, aims.truth_cut)):
        raise UserError("A cut is a number, such as --cut 7: no score is above what is none, or infinite.")
    if aims.truth_cut is not None and aims.cut is None:
        raise UserError("Say from which score on rows are selected, too: --cut.")


def is_binary(truths: NDArray[Any]) -> bool:
    return len(truths) > 0 and bool(require("numpy", "score").isin(truths, (0.0, 1.0)).all())


def least_truth(aims: Aims, binary: bool) -> float:
    """From which on a truth is above the cut."""
    if aims.truth_cut is not None:
        return aims.truth_cut
    assert aims.cut is not None
    return 1.0 if binary else aims.cut


def _ends(
    reach: Intervals, calibrated: NDArray[Any], binary: bool, bounds: tuple[float, float] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """What can be ruled out without a loss: between 0 and 1, and beyond the bounds. The calibrated score lies between
    the ends: to widen an interval breaks no promise."""
    numpy = require("numpy", "score")
    low, high = reach.low, reach.high
    if binary:
        least, most = numpy.where(low <= 0, 0.0, 1.0), numpy.where(high >= 1, 1.0, 0.0)
        unsure = least > most
        return numpy.where(unsure, 0.0, least), numpy.where(unsure, 1.0, most)
    low, high = numpy.minimum(low, calibrated), numpy.maximum(high, calibrated)
    return (low, high) if bounds is None else (numpy.maximum(low, bounds[0]), numpy.minimum(high, bounds[1]))


def _statements(
    sample: Sample,
    score: NDArray[Any],
    truths: NDArray[Any],
    predictions: Predictions,
    binary: bool,
    aims: Aims,
    groups: NDArray[Any] | None,
    draw: Any,
) -> Iterator[Statement]:
    numpy = require("numpy", "score")
    plain = Labelled(sample, truths, predictions)
    above = selected = None
    if aims.cut is not None:
        own = score[sample.labelled]
        right = (truths >= least_truth(aims, binary)).astype(float)
        fit = cross_fit(own, right, sample.weights, draw, fit_venn_abers)
        above = Labelled(sample, right, Predictions(fit.of_others(score), fit.of_labelled(own)))
        selected = score >= aims.cut
    named: list[tuple[str | None, NDArray[Any]]] = [(None, numpy.ones(sample.height, bool))]
    if groups is not None:
        named += [(str(name), groups == name) for name in sorted(set(groups))]
    for name, among in named:
        yield _statement(MEAN, name, plain, among, among, aims, binary)
        if above is not None and selected is not None:
            yield _statement(SHARE, name, above, among, among, aims)
            yield _statement(PRECISION, name, above, among & selected, among, aims)
            yield _recall(name, above, selected, among, aims)


def _statement(
    what: str,
    group: str | None,
    rows: Labelled,
    among: NDArray[Any],
    of: NDArray[Any],
    aims: Aims,
    binary: bool = False,
) -> Statement:
    """The mean of truths that are ``binary`` is a share."""
    estimate = prediction_powered.mean if what == MEAN and not binary else prediction_powered.share
    height, truths = int(among.sum()), int(among[rows.sample.labelled].sum())
    if truths < min(LEAST_TRUTHS, height) or not height:
        return Statement(what, group, height, truths, None, _needed(rows.sample, truths, height, of))
    return Statement(what, group, height, truths, estimate(rows, among, aims.confidence), None)


def _recall(group: str | None, rows: Labelled, selected: NDArray[Any], among: NDArray[Any], aims: Aims) -> Statement:
    height = int(among.sum())
    inside, chosen = among[rows.sample.labelled], selected[rows.sample.labelled]
    truths = int(rows.truths[inside].sum())
    if int(inside.sum()) < height:
        # Where one of the two sides has hardly been looked at, its part in the variance cannot be seen.
        sides = [int((inside & chosen).sum()), int((inside & ~chosen).sum())]
        if truths < LEAST_TRUTHS or min(sides) < _LEAST_EACH:
            scarce = min(truths, 2 * min(sides))
            return Statement(RECALL, group, height, truths, None, _needed(rows.sample, scarce, height, among))
    if not truths:
        return Statement(RECALL, group, height, truths, None, None)
    found = prediction_powered.recall(rows, selected, among, aims.confidence)
    return Statement(RECALL, group, height, truths, found, None)


def _needed(sample: Sample, truths: int, height: int, of: NDArray[Any]) -> int | None:
    """Truths among the rows ``of`` the group that would hold enough of those that count, at the rate so far."""
    if not height or not truths:
        return None
    have = int(of[sample.labelled].sum())
    return min(math.ceil(have * min(LEAST_TRUTHS, height) / truths), int(of.sum()))


def _columns(known: NDArray[Any]) -> tuple[list[float | None], list[float | None], list[float | None]]:
    return [None] * len(known), [None] * len(known), [None] * len(known)


def _spread(known: NDArray[Any], values: NDArray[Any]) -> list[float | None]:
    """Over all rows, those without a score, too."""
    found: list[float | None] = [None] * len(known)
    for row, value in zip(known.nonzero()[0].tolist(), values.tolist(), strict=True):
        found[row] = value if math.isfinite(value) else None
    return found
