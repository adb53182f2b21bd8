"""A comparison of two models' scores in words. Pure."""

from __future__ import annotations

from gristmill.html_page import short
from gristmill.scoring.compare import Comparison, Side
from gristmill.scoring.comparison import AtCut, ScoreComparison
from gristmill.scoring.statistics.prediction_powered import Estimate


def sides(found: Comparison) -> list[str]:
    """What was compared; and a warning where that is two things at once."""
    told = [
        f"A: {side_told(found.a)}",
        f"B: {side_told(found.b)}",
        f"{found.rows:,} random rows of {found.of:,}, each scored by both; intervals of {100 * found.confidence:g} % "
        "for all rows.",
    ]
    if found.a.method != found.b.method:
        told.append(
            f"A was asked by the method {found.a.method} and B by {found.b.method}, so that this is also what the "
            "method does: with --method generate both are asked alike."
        )
    return told


def side_told(side: Side) -> str:
    """Such as "smollm2, openvino engine, weights=q8_0, computing in f32"."""
    parts = [side.model, side.place]
    for computed in side.computed[-1:]:
        parts += [f"{key}={value}" for key, value in computed.options.items()]
        parts += [f"computing in {computed.precision}"] if computed.precision else []
    return ", ".join(parts)


def rows_told(score: ScoreComparison) -> str:
    """How many rows could be compared."""
    told = [f"{score.rows:,} rows have a {score.name} by both"]
    for count, whose in ((score.only_a, "by A only"), (score.only_b, "by B only"), (score.neither, "by neither")):
        if count:
            told.append(f"{count:,} {whose}")
    if all(each.a == each.b for each in score.changes):
        told[0] += ", the same to the bit in each"
    return ", ".join(told) + "."


def measures(score: ScoreComparison) -> list[tuple[str, Estimate | None]]:
    """Each by its name."""
    told: list[tuple[str, Estimate | None]] = [
        ("rank correlation (Spearman): 1 is the same order", score.rank_correlation),
        ("mean difference, B - A", score.difference),
        ("share of rows with another label", score.labels_differ),
    ]
    if score.at_cut is not None:
        told.append((f"share of rows on the same side of {short(score.at_cut.cut)}", score.at_cut.agreement))
    return told


def cut_told(at_cut: AtCut) -> str:
    """Who is selected by whom."""
    beyond = "undefined, as each selects all rows or none" if at_cut.kappa is None else short(at_cut.kappa)
    return (
        f"From {short(at_cut.cut)} on: {at_cut.both:,} rows by both, {at_cut.only_a:,} by A only, {at_cut.only_b:,} by "
        f"B only, {at_cut.neither:,} by neither; agreement beyond chance (Cohen's kappa): {beyond}."
    )
