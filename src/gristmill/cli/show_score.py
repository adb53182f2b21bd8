"""Showing scores: prompts, what came out, how they compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gristmill.cli import show, show_calibration
from gristmill.printable import printable

if TYPE_CHECKING:
    from gristmill.scoring.audit import Difference
    from gristmill.scoring.questionnaire import Prompt
    from gristmill.scoring.report import ScoreReport

_LISTED_ERRORS = 5


def print_prompts(prompts: Iterable[Prompt]) -> None:
    for prompt in prompts:
        rows = "all rows" if prompt.row is None else f"row {prompt.row + 1}"
        show.print_text(f"--- {prompt.role} ({rows})\n{prompt.text}")


def print_differences(found: Sequence[Difference]) -> None:
    """Of an audit."""
    table = Table("change", box=None, header_style="bold")
    for title in ("scores", "only one", "mean difference", "largest", "rank correlation"):
        table.add_column(title, justify="right")
    for each in found:
        numbers = ("" if number is None else f"{number:.3f}" for number in (each.mean, each.largest, each.spearman))
        table.add_row(printable(each.name), str(each.rows), str(each.missing), *numbers)
    show.print_table(table)


def score_lines(reports: Sequence[ScoreReport], output: str) -> tuple[int, list[str]]:
    """How many scores are missing, and what to say of what came out."""
    missing: dict[tuple[str, str | None], list[object]] = {}
    for row in range(len(reports[0].outcomes)):
        for report in reports:
            outcome = report.outcomes[row]
            if outcome.score is None:
                missing.setdefault((report.name, outcome.error), []).append(report.ids[row])
    failed = sum(map(len, missing.values()))
    total = sum(len(report.outcomes) for report in reports)
    lines = [f"{total - failed:,} of {total:,} scores: {output}"]
    told = list(missing.items())[:_LISTED_ERRORS]
    for (name, error), ids in told:
        others = f" and {len(ids) - 1:,} more" if len(ids) > 1 else ""
        lines.append(f"  {printable(ids[0])}{others}: no {printable(name)}: {printable(error)}")
    if untold := failed - sum(len(ids) for _, ids in told):
        lines.append(f"  and {untold:,} more: see the column {printable(reports[0].name)}_error")
    return failed, lines


def score_facts(reports: Sequence[ScoreReport], output: str, page: str | None) -> dict[str, Any]:
    """What ``--json`` prints. Measures of agreement are null where they are undefined."""
    return {
        "output": output,
        "report": page,
        "rows": len(reports[0].outcomes),
        "scores": [
            {
                "name": report.name,
                "scored": sum(outcome.score is not None for outcome in report.outcomes),
                "missing": sum(outcome.score is None for outcome in report.outcomes),
                "agreement": None
                if report.agreement is None
                else {
                    "rows": report.agreement.rows,
                    "measures": [measure._asdict() for measure in report.agreement.measures],
                },
                "calibration": show_calibration.calibration_facts(report.calibration),
            }
            for report in reports
        ],
    }


def agreement_lines(reports: Sequence[ScoreReport]) -> list[str]:
    lines = []
    for report in reports:
        if report.agreement is None:
            continue
        lines.append(f"{printable(report.name)} against the right scores, {report.agreement.rows:,} rows:")
        for measure in report.agreement.measures:
            interval = "undefined"
            if measure.value is not None:
                interval = f"{measure.value:.3f} ({measure.low:.3f} to {measure.high:.3f})"
            lines.append(f"  {measure.name}: {interval}")
        if report.calibration is not None:
            lines += show_calibration.calibration_lines(report.name, report.calibration)
    return lines
