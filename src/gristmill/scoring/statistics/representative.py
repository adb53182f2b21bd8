"""Whether labelled rows look like a random sample of their table, by their scores. Pure."""

from __future__ import annotations

from gristmill.extras import require
from gristmill.scoring.statistics.strata import Sample

#: The largest probability that a random sample is taken for another one.
_SIGNIFICANT = 0.001
_LEAST_ROWS = 8


def looks_random(sample: Sample, scores: object) -> bool:
    """By a Kolmogorov-Smirnov test in each stratum, of the labelled rows against the others (Bonferroni)."""
    numpy, stats = require("numpy", "score"), require("scipy.stats", "score")
    labelled = numpy.zeros(sample.height, bool)
    labelled[sample.labelled] = True
    values = numpy.asarray(scores)
    found = []
    for stratum in range(len(sample.rows)):
        mine = sample.stratum == stratum
        known, others = values[mine & labelled], values[mine & ~labelled]
        if min(len(known), len(others)) >= _LEAST_ROWS:
            found.append(float(stats.ks_2samp(known, others, method="asymp").pvalue))
    return not found or min(found) * len(found) >= _SIGNIFICANT
