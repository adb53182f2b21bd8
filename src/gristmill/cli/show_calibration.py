"""Showing what right scores say of a whole table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gristmill.printable import printable

if TYPE_CHECKING:
    from gristmill.scoring.calibration import Calibration


def calibration_lines(name: str, found: Calibration) -> list[str]:
    from gristmill.scoring.calibration_words import promises, statement_name, too_few

    lines = [f"{printable(name)} and the right scores:", *(f"  {line}" for line in promises(found))]
    group: object = ...
    for each in found.statements:
        if each.group != group:
            group = each.group
            named = "The whole table" if each.group is None else printable(each.group)
            lines.append(f"  {named}, {each.rows:,} rows ({100 * found.aims.confidence:g} % intervals):")
        told = too_few(each)
        if each.estimate is not None:
            value, low, high = each.estimate
            told = f"{value:.3g} ({low:.3g} to {high:.3g})"
        lines.append(f"    {statement_name(each.what, found)}: {told}")
    return lines


def calibration_facts(found: Calibration | None) -> dict[str, Any] | None:
    """For ``--json``. Without an ``estimate``, ``needed`` truths in all would be about enough, null where nobody can
    tell."""
    if found is None:
        return None
    return {
        "confidence": found.aims.confidence,
        "cut": found.aims.cut,
        "truth_cut": found.aims.truth_cut,
        "rows": found.rows,
        "truths": found.truths,
        "needed": found.needed if found.guarantee is None else None,
        "binary": found.binary,
        "looks_random": found.random,
        "stratified": found.stratified,
        "row_intervals": found.guarantee._asdict() if found.guarantee is not None else None,
        "statements": [
            each._asdict() | {"estimate": each.estimate._asdict() if each.estimate is not None else None}
            for each in found.statements
        ],
    }
