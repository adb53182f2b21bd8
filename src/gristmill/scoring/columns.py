"""The columns that scores are in a table."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from gristmill.scoring.outcome import Outcome
from gristmill.user_error import UserError


def with_scores(table: pl.DataFrame, outcomes: Sequence[Sequence[Outcome]], names: Sequence[str]) -> pl.DataFrame:
    """``outcomes`` by row and score. The table with the columns of each score behind its own: the name itself,
    name_label, and so on. Columns that would be empty throughout are left out, but for the score and its error. Raises
    UserError where a name is taken."""
    added: dict[str, pl.Series] = {}
    for place, name in enumerate(names):
        column = [of_row[place] for of_row in outcomes]
        for field, kind in OF_A_SCORE.items():
            full = name if field == "score" else f"{name}_{field}"
            series = pl.Series(full, [getattr(outcome, field) for outcome in column], dtype=kind)
            if field in ("score", "error") or series.null_count() < len(series):
                added[full] = series
    return table.with_columns(*added.values())


def check_names(table: pl.DataFrame, names: Sequence[str], more: Sequence[str] = ()) -> None:
    """Raises UserError where a column of the scores, or with one of the ``more`` fields, is there already."""
    for name in names:
        for field in (*OF_A_SCORE, *more):
            full = name if field == "score" else f"{name}_{field}"
            if full in table.columns:
                raise UserError(
                    f"The table has a column '{full}' already: choose another name for the scores, with --name."
                )


OF_A_SCORE = {
    "score": pl.Float64, "label": pl.String, "entropy": pl.Float64, "off_scale": pl.Float64, "method": pl.String,
    "reason": pl.String, "model": pl.String, "before": pl.Float64, "error": pl.String,
}  # fmt: skip
