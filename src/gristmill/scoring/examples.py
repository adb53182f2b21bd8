"""Rows with their right scores, shown to the model before each row."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from gristmill.scoring.prompt import Example
from gristmill.scoring.scale import Scale
from gristmill.scoring.template import RowTemplate
from gristmill.user_error import UserError


def read_examples(
    table: pl.DataFrame, template: RowTemplate, names: Sequence[str], criteria: Sequence[str], scale: Scale
) -> list[Example]:
    """One example for each row and score. ``names`` are the columns of the scores, one a criterion. Raises UserError
    for a missing column or a label that is not on the scale."""
    for name in names:
        if name not in table.columns:
            raise UserError(f"The examples have no column '{name}' with their scores. They have: {table.columns}.")
    examples = []
    for number, row in enumerate(table.iter_rows(named=True), 1):
        text = template.render(row)
        for place, name in enumerate(names):
            label = _label(row[name])
            if label not in scale.labels:
                raise UserError(f"Example {number} has the {name} '{label}', which is not on the scale: {scale.text}.")
            examples.append(Example(text, criteria[place] if criteria else None, label))
    return examples


def _label(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
