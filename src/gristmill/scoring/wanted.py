"""Which rows a person should find the truth of next. Pure; needs the extra ``score``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gristmill.extras import require
from gristmill.scoring.calibration import LEAST_TRUTHS, Aims, is_binary, least_truth
from gristmill.scoring.statistics.allocation import allocate, draw_rows, score_strata
from gristmill.scoring.statistics.isotonic import cross_fit
from gristmill.scoring.statistics.strata import sample_of
from gristmill.scoring.statistics.venn_abers import fit_venn_abers, map_fitter

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Truths that a stratum's own error counts against that of the whole table.
_PRIOR_ROWS = 5


class Wanted(NamedTuple):
    """``rows`` by number, rising. By row of the table: its ``stratum``, and the probability of ``inclusion``: the share
    of its stratum that has a truth when all that are wanted are found; None for rows without a score."""

    rows: list[int]
    stratum: list[int | None]
    inclusion: list[float | None]


def choose_wanted(
    scores: Sequence[float | None],
    truths: Sequence[float | None],
    more: int,
    *,
    aims: Aims = Aims(),  # noqa: B008 - immutable
    strata: Sequence[int | None] | None = None,
) -> Wanted:
    """``more`` rows, at random within strata of the score, more of them where truths are hardest to predict: those
    whose truths narrow the intervals most. ``strata`` are those that truths were drawn by before, if any were."""
    numpy = require("numpy", "score")
    score = numpy.array([math.nan if each is None else each for each in scores], float)
    known = ~numpy.isnan(score)
    if not known.any():
        return Wanted([], [None] * len(known), [None] * len(known))
    score = score[known]
    truth = numpy.array([math.nan if each is None else each for each in truths], float)[known]
    labelled = ~numpy.isnan(truth)
    if strata is None:
        stratum = score_strata(score)
    else:
        stratum = numpy.array(strata, dtype=object)[known].astype(int)
        stratum = numpy.unique(stratum, return_inverse=True)[1] + 1
    count = int(stratum.max())
    rows = numpy.bincount(stratum - 1, minlength=count)
    taken = numpy.bincount(stratum[labelled] - 1, minlength=count)
    errors = _errors(score, truth, labelled, stratum, aims, strata is not None)
    wanted = allocate(rows, taken, errors, more)
    draw = numpy.random.default_rng(int(labelled.sum()))
    places = numpy.flatnonzero(known)
    drawn = draw_rows(stratum, ~labelled, wanted, draw)
    inclusion = ((taken + wanted) / rows)[stratum - 1]
    return Wanted(places[drawn].tolist(), _spread(known, stratum.tolist()), _spread(known, inclusion.tolist()))


def _errors(
    score: NDArray[Any], truth: NDArray[Any], labelled: NDArray[Any], stratum: NDArray[Any], aims: Aims, drawn: bool
) -> NDArray[Any]:
    """By stratum, how far truths are from what the score predicts: of the truth itself and, with a cut, of whether it
    is above. The same everywhere, where too few truths are known to tell."""
    numpy = require("numpy", "score")
    count = int(stratum.max())
    if labelled.sum() < LEAST_TRUTHS:
        return numpy.ones(count)  # type: ignore[no-any-return]
    own, values = score[labelled], truth[labelled]
    weights = sample_of(labelled, stratum if drawn else None).weights
    binary = is_binary(values)
    draw = numpy.random.default_rng(0)
    fit = cross_fit(own, values, weights, draw, map_fitter(binary))
    total = _squared(values - fit.of_labelled(own), stratum[labelled], count)
    if aims.cut is not None:
        above = (values >= least_truth(aims, binary)).astype(float)
        fit = cross_fit(own, above, weights, draw, fit_venn_abers)
        total = total + _squared(above - fit.of_labelled(own), stratum[labelled], count)
    return numpy.sqrt(total)  # type: ignore[no-any-return]


def _squared(misses: NDArray[Any], stratum: NDArray[Any], count: int) -> NDArray[Any]:
    """Mean squares by stratum, drawn towards that of all, which is 1."""
    numpy = require("numpy", "score")
    squares = misses**2 / max(float((misses**2).mean()), 1e-300)
    sums, rows = numpy.bincount(stratum - 1, squares, count), numpy.bincount(stratum - 1, minlength=count)
    found: NDArray[Any] = (sums + _PRIOR_ROWS) / (rows + _PRIOR_ROWS)
    return found


def _spread(known: NDArray[Any], values: list[Any]) -> list[Any]:
    """Over all rows, those without a score, too."""
    given = iter(values)
    return [next(given) if each else None for each in known.tolist()]
