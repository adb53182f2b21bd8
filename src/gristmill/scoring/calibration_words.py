"""What a calibration says, in words, for a screen and for the page. Pure."""

from __future__ import annotations

from gristmill.scoring.calibration import MEAN, PRECISION, RECALL, SHARE, Calibration, Statement


def statement_name(what: str, found: Calibration) -> str:
    """What a statement is about, such as "rows with a truth of 7 or more"."""
    aims = found.aims
    cut = f"{aims.cut:g}" if aims.cut is not None else ""
    least = aims.truth_cut if aims.truth_cut is not None else 1.0 if found.binary else aims.cut
    above = f"a truth of {least:g} or more" if least is not None else ""
    return {
        MEAN: "mean truth",
        SHARE: f"share of rows with {above}",
        PRECISION: f"precision: of the rows with a score of {cut} or more, those with {above}",
        RECALL: f"recall: of the rows with {above}, those with a score of {cut} or more",
    }[what]


def too_few(statement: Statement) -> str:
    """Why a statement has no estimate, and what would help."""
    counted = {
        PRECISION: "with a score from the cut on", RECALL: "above the cut",
    }.get(statement.what, "in it")  # fmt: skip
    if not statement.rows:
        return "no row has such a score"
    if statement.needed is None:
        return f"no known truth is {counted}: nothing can be told"
    if statement.what == RECALL:
        counted += ", or too few on one side of the cut of the score"
    return f"too few known truths ({statement.truths}) are {counted}: about {statement.needed:,} in all would do"


def promises(found: Calibration) -> list[str]:
    """What holds of the calibrated scores and intervals, and what it rests on."""
    if found.guarantee is None:
        return [
            f"{found.truths:,} of {found.rows:,} rows with a score have a right one: too few for calibrated scores and "
            f"intervals; {found.needed} would do."
        ]
    percent, guarantee = f"{100 * found.aims.confidence:g} %", found.guarantee
    proven = f"at least {100 * guarantee.least:g} % are proven" if guarantee.least < guarantee.typical else "proven"
    scale = "the probability of a right score of 1" if found.binary else "the score on the scale of the right ones"
    lines = [
        f"The calibrated score is {scale}, from {found.truths:,} rows that have one; no row is judged by itself.",
        f"Of all rows' prediction intervals, {percent} hold the right score ({guarantee.method}; {proven}, for a row "
        "drawn at random): not of each group, and not of each score.",
        "All of it rests on the rows with a right score being "
        + ("drawn at random within their strata." if found.stratified else "a random sample of those with a score."),
    ]
    if not found.random:
        lines.append(
            "But they do not look like one: their scores differ plainly from the others' (Kolmogorov-Smirnov). Do not "
            "rely on what follows; have rows drawn with --truth-wanted, and find their right scores."
        )
    return lines
