"""A share of a random sample's rows, with an exact interval (Clopper and Pearson 1934). Pure."""

from __future__ import annotations

from gristmill.extras import require
from gristmill.scoring.statistics.prediction_powered import Estimate


def proportion(hits: int, rows: int, confidence: float) -> Estimate:
    """``hits`` of ``rows``, at least one. The interval covers the share of all rows in at least ``confidence`` of all
    samples, whatever it is: its ends are quantiles of beta distributions, and it has a width where no row or every row
    is a hit."""
    beta = require("scipy.stats", "score").beta
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, rows - hits + 1)) if hits > 0 else 0.0
    high = float(beta.isf(tail, hits + 1, rows - hits)) if hits < rows else 1.0
    return Estimate(hits / rows, low, high)
