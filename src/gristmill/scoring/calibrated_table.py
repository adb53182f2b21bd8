"""A scored table with the columns that its truths give it, and the rows whose truth is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from gristmill.scoring.calibration import MOST_GROUPS, Aims, Calibration, calibrate, check_aims
from gristmill.scoring.columns import OF_A_SCORE
from gristmill.scoring.table import number_values
from gristmill.scoring.wanted import choose_wanted
from gristmill.user_error import UserError

#: Behind a score's name: its columns.
CALIBRATED_FIELDS = ("calibrated", "low", "high", "stratum", "inclusion")


class TruthUse(NamedTuple):
    """What to do with truths: ``aims`` of the statements, the column of the groups they are made ``by``, and of how
    many rows more the truth is ``wanted``."""

    aims: Aims = Aims()
    by: str | None = None
    wanted: int = 0


class CalibratedTable(NamedTuple):
    """``table`` with NAME_calibrated, NAME_low and NAME_high, where there are truths enough. With ``wanted`` rows:
    NAME_stratum and NAME_inclusion, too, and those rows with an empty truth and no score, to be filled in."""

    table: pl.DataFrame
    calibration: Calibration
    wanted: pl.DataFrame | None


def check_truth_use(table: pl.DataFrame, truth: str | None, use: TruthUse) -> None:
    """Raises UserError for what cannot work, before anything is asked."""
    check_aims(use.aims)
    if truth is None:
        if use.aims.cut is not None or use.by is not None or use.wanted:
            raise UserError(
                "Name the column of right scores, with --truth: --cut, --by and --truth-wanted are about them."
            )
        return
    if use.by is None:
        return
    if use.by not in table.columns:
        raise UserError(f"The table has no column '{use.by}' for --by. It has: {', '.join(table.columns)}.")
    if (groups := table[use.by].n_unique()) > MOST_GROUPS:
        raise UserError(
            f"The column '{use.by}' has {groups:,} different values, {MOST_GROUPS} at most can be groups: choose "
            "another column for --by, or put its values together first."
        )


def calibrated_table(
    table: pl.DataFrame,
    name: str,
    truths: Sequence[float | None],
    truth: str,
    use: TruthUse,
    range_of_scale: tuple[float, float] | None = None,
) -> CalibratedTable:
    """``table`` has the scores in the column ``name`` and, where truths were drawn by stratum, NAME_stratum. Intervals
    end at the ``range_of_scale``, where all known truths lie on it. Raises UserError."""
    scores = number_values(table, name, "a score")
    by = table[use.by].to_list() if use.by is not None else None
    stratum, inclusion = f"{name}_stratum", f"{name}_inclusion"
    strata: list[int | None] | None = None
    if stratum in table.columns:
        given = number_values(table, stratum, "a stratum")
        strata = [None if each is None else int(each) for each in given]
        if any(each is None and score is not None for each, score in zip(strata, scores, strict=True)):
            raise UserError(f"Some rows have a score but nothing in '{stratum}': leave the column as it was written.")
    found = calibrate(scores, truths, aims=use.aims, by=by, strata=strata, bounds=_bounds(truths, range_of_scale))
    if found.guarantee is not None:
        columns = {"calibrated": found.calibrated, "low": found.low, "high": found.high}
        table = table.with_columns(pl.Series(f"{name}_{key}", values, pl.Float64) for key, values in columns.items())
    if not use.wanted:
        return CalibratedTable(table, found, None)
    wanted = choose_wanted(scores, truths, use.wanted, aims=use.aims, strata=strata)
    table = table.with_columns(
        pl.Series(stratum, wanted.stratum, pl.Int64), pl.Series(inclusion, wanted.inclusion, pl.Float64)
    )
    empty = table[wanted.rows].with_columns(pl.lit(None, pl.String).alias(truth))
    # Whoever sees a score is drawn towards it.
    hidden = {truth, name, *(f"{name}_{field}" for field in (*OF_A_SCORE, *CALIBRATED_FIELDS))}
    return CalibratedTable(table, found, empty.select(*(each for each in table.columns if each not in hidden), truth))


def _bounds(truths: Sequence[float | None], range_of_scale: tuple[float, float] | None) -> tuple[float, float] | None:
    if range_of_scale is None:
        return None
    least, most = range_of_scale
    return range_of_scale if all(each is None or least <= each <= most for each in truths) else None
