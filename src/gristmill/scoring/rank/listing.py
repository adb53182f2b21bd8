"""The list that a ranking ends with, as a table: each row with its score, its place and how it was found. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from gristmill.scoring.columns import with_scores
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.rank.compared import Compared
from gristmill.scoring.rank.evidence import How
from gristmill.user_error import UserError

#: How a row was found, in the column of the output.
FOUND: Mapping[How, str] = {
    How.PILOT: "pilot",
    How.PROXY: "proxy",
    How.AUDIT: "audit",
    How.ACCEPTED: "audit",
    How.ALL: "everything judged",
}
ACCEPTED = "accepted by the proxy, not judged"


def listing(
    table: pl.DataFrame,
    name: str,
    rows: Sequence[int],
    outcomes: Sequence[Outcome],
    found: Sequence[str],
    guesses: Sequence[float] | None,
    compared: Compared | None,
) -> pl.DataFrame:
    """``rows`` of the table in the order of the list; the others go with them. ``name`` of the scores."""
    added: dict[str, Any] = {f"{name}_rank": range(1, len(rows) + 1), f"{name}_found": found}
    if guesses is not None:
        added[f"{name}_proxy"] = guesses
    columns = [pl.Series(column, values) for column, values in added.items()]
    if compared is not None:
        columns.append(pl.Series(f"{name}_tier", compared.tier, dtype=pl.Int64))
        columns.append(pl.Series(f"{name}_strength", compared.strength, dtype=pl.Float64))
    return with_scores(table[rows], [[each] for each in outcomes], [name]).with_columns(columns)


def check_columns(table: pl.DataFrame, name: str, compared: bool) -> None:
    """Raises UserError where a column of the output is there already."""
    for field in ("rank", "found", "proxy", *(("tier", "strength") if compared else ())):
        if f"{name}_{field}" in table.columns:
            raise UserError(
                f"The table has a column '{name}_{field}' already: choose another name for the scores, with --name."
            )
