"""Right scores that come in a table of their own, such as one that a person filled in."""

from __future__ import annotations

import polars as pl

from gristmill.scoring.table import check_ids
from gristmill.user_error import UserError


def with_truths(table: pl.DataFrame, truths: pl.DataFrame, id_column: str, truth: str) -> pl.DataFrame:
    """``table`` with the column ``truth`` as ``truths`` has it, by id; where that is empty, as it was. Raises UserError
    for ids that the table does not have."""
    check_ids(truths, id_column)
    if truth not in truths.columns:
        raise UserError(f"The right scores have no column '{truth}'. They have: {', '.join(truths.columns)}.")
    given = truths.select(
        pl.col(id_column).cast(pl.String).alias("id"), pl.col(truth).cast(pl.String).str.strip_chars().alias("truth")
    ).filter(pl.col("truth") != "")
    ids = table[id_column].cast(pl.String)
    unknown = given.filter(~pl.col("id").is_in(ids.implode()))
    if unknown.height:
        raise UserError(
            f"{unknown.height:,} of the right scores are of ids that the table does not have, such as "
            f"'{unknown['id'][0]}': name the table that they were taken from."
        )
    before = (
        table[truth].cast(pl.String) if truth in table.columns else pl.Series([None] * table.height, dtype=pl.String)
    )
    joined = pl.DataFrame({"id": ids, "before": before}).join(given, on="id", how="left", maintain_order="left")
    return table.with_columns(joined.select(pl.coalesce("truth", "before").alias(truth)).to_series())
