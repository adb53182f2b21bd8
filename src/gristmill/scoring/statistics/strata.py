"""Which rows of a table have a truth, drawn at random within strata of it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gristmill.extras import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Labelled rows of a stratum: with fewer, their variance cannot be told.
_LEAST_LABELLED = 2


class Sample(NamedTuple):
    """The rows of a table, those of them that have a truth (``labelled``, rows by number), and every row's stratum,
    counted from 0. Within a stratum, the labelled rows are a simple random sample without replacement."""

    labelled: NDArray[Any]
    stratum: NDArray[Any]
    #: By stratum: its rows, and how many of them are labelled (two at least, where it has two rows).
    rows: NDArray[Any]
    taken: NDArray[Any]

    @property
    def height(self) -> int:
        return len(self.stratum)

    @property
    def weights(self) -> NDArray[Any]:
        """Of each labelled row: how many rows of the table it stands for, 1 over its inclusion probability."""
        found: NDArray[Any] = (self.rows / self.taken)[self.stratum[self.labelled]]
        return found

    def variance_of_total(self, one: NDArray[Any], other: NDArray[Any]) -> float:
        """Estimated covariance of the estimated totals of two variables that are known of the labelled rows (variance,
        where they are the same): sum over the strata of N^2 (1 - n/N) s_xy / n (Cochran 1977, 5.3)."""
        numpy = require("numpy", "score")
        stratum = self.stratum[self.labelled]
        count = len(self.rows)

        def centred(values: NDArray[Any]) -> NDArray[Any]:
            found: NDArray[Any] = values - (numpy.bincount(stratum, values, count) / self.taken)[stratum]
            return found

        products = numpy.bincount(stratum, centred(one) * centred(other), count)
        covariance = products / numpy.maximum(self.taken - 1, 1)
        return float((self.rows**2 * (1 - self.taken / self.rows) * covariance / self.taken).sum())


def sample_of(labelled: NDArray[Any], strata: NDArray[Any] | None = None) -> Sample:
    """``labelled``: whether each row has a truth, at least one of them; ``strata``: numbers, in the order of the
    scores, None for a simple random sample of the whole table. A stratum with fewer than two labelled rows goes
    together with its neighbours: then the sample must be random in all of them together."""
    numpy = require("numpy", "score")
    if strata is None:
        strata = numpy.zeros(len(labelled), int)
    names, stratum = numpy.unique(strata, return_inverse=True)
    rows = numpy.bincount(stratum, minlength=len(names))
    taken = numpy.bincount(stratum[labelled], minlength=len(names))
    together = numpy.zeros(len(names), int)
    begun = have = 0
    for place in range(len(names)):
        together[place] = begun
        have += taken[place]
        if have >= _LEAST_LABELLED or have == rows[together == begun].sum():
            begun, have = begun + 1, 0
    if have or together[-1] == begun:
        together[together == begun] = max(begun - 1, 0)
    stratum = together[stratum]
    count = int(stratum.max()) + 1
    return Sample(
        numpy.flatnonzero(labelled),
        stratum,
        numpy.bincount(stratum, minlength=count),
        numpy.bincount(stratum[labelled], minlength=count),
    )
