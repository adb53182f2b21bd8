"""Spearman's rank correlation, without the extra ``score``. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl


def spearman(one: Sequence[float] | Any, other: Sequence[float] | Any) -> float | None:
    """Of two columns of the same length (lists or arrays); rows where one of them is NaN are left out. None where the
    rest has no two different values in one of them."""
    frame = pl.DataFrame({"one": one, "other": other}, strict=False).filter(pl.all_horizontal(pl.all().is_not_nan()))
    found: float | None = frame.select(pl.corr("one", "other", method="spearman")).item()
    return None if found is None or math.isnan(found) else found
