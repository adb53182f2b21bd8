"""Which rows to find the truth of, so that intervals narrow most: strata of the scores, and how many of each. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gristmill.extras import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Strata of a table: more would have too few labelled rows each.
_STRATA = 10
#: Labelled rows that a stratum gets at least, where it has as many: its variance is estimated from them.
_LEAST = 2
#: How much of an allocation follows the rows alone, whatever is believed of their errors.
_SAFE = 0.5


def score_strata(scores: NDArray[Any]) -> NDArray[Any]:
    """Of each row its stratum, counted from 1 for the lowest scores: as many rows in each as equal scores, which stay
    together, allow."""
    numpy = require("numpy", "score")
    ends = numpy.unique(numpy.quantile(scores, numpy.linspace(0, 1, _STRATA + 1)[1:-1], method="higher"))
    found: NDArray[Any] = numpy.unique(numpy.searchsorted(ends, scores, side="left"), return_inverse=True)[1] + 1
    return found


def allocate(rows: NDArray[Any], taken: NDArray[Any], errors: NDArray[Any], more: int) -> NDArray[Any]:
    """How many of ``more`` truths to get in each stratum of ``rows`` rows, ``taken`` of them with a truth already,
    where predictions miss by ``errors`` (standard deviations): half of all in proportion to rows times errors (Neyman
    1934), half in proportion to rows alone, should the errors have been misjudged."""
    numpy = require("numpy", "score")
    free = rows - taken
    more = min(more, int(free.sum()))
    total = int(taken.sum()) + more
    sizes = rows / rows.sum()
    needs = rows * errors
    shares = _SAFE * sizes + (1 - _SAFE) * (needs / needs.sum() if needs.sum() > 0 else sizes)
    found: NDArray[Any] = numpy.minimum(numpy.maximum(_LEAST - taken, 0), free)
    # One at a time to where most is missing: what one stratum cannot take, the others do.
    for _ in range(more - int(found.sum())):
        missing = numpy.where(found < free, shares * total - taken - found, -numpy.inf)
        found[int(missing.argmax())] += 1
    while int(found.sum()) > more:
        found[int(found.argmax())] -= 1
    return found


def draw_rows(stratum: NDArray[Any], free: NDArray[Any], wanted: NDArray[Any], draw: Any) -> NDArray[Any]:
    """Rows by number, rising: of those that are ``free`` (a mask), at random, so many of each stratum."""
    numpy = require("numpy", "score")
    found = [
        draw.choice(numpy.flatnonzero(free & (stratum == number + 1)), count, replace=False)
        for number, count in enumerate(wanted)
        if count
    ]
    drawn: NDArray[Any] = numpy.sort(numpy.concatenate(found)) if found else numpy.empty(0, int)
    return drawn
