"""``gristmill calibrate``: what the right scores of some rows say of a table that has been scored."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli import scoring, show, show_calibration
from gristmill.cli.targets import check_targets
from gristmill.user_error import UserError


def calibrate(
    table: Annotated[str, typer.Argument(help="A table with scores, as gristmill score writes it.")],
    id_column: scoring.IdColumn,
    truth: Annotated[str, typer.Option(metavar="COLUMN", help="The column of right scores; most may be empty.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table with what is found: .csv, .tsv, ...")],
    truths: Annotated[
        str | None, typer.Option(metavar="TABLE", help="Right scores by id, such as the rows of --truth-wanted.")
    ] = None,
    name: scoring.ScoreName = "score",
    confidence: scoring.Confidence = 0.9,
    cut: scoring.Cut = None,
    truth_cut: scoring.TruthCut = None,
    by: scoring.By = None,
    truth_wanted: scoring.TruthWanted = None,
    report: scoring.Report = None,
    keep_formulas: scoring.KeepFormulas = False,
    overwrite: scoring.Overwrite = False,
    as_json: scoring.AsJson = False,
) -> None:
    """Calibrate scores by the right scores of some rows: nothing is asked of a model."""
    import polars as pl

    from gristmill.html_page import told_date
    from gristmill.scoring.calibrated_table import TruthUse, calibrated_table, check_truth_use
    from gristmill.scoring.calibration import Aims
    from gristmill.scoring.calibration_view import calibration_page
    from gristmill.scoring.table import check_ids, check_target, read_table, table_files, truth_values, write_table
    from gristmill.scoring.truths_by_id import with_truths

    frame = read_table(table)
    check_ids(frame, id_column)
    if name not in frame.columns:
        raise UserError(f"The table has no column '{name}' with scores: score it first, or say which, with --name.")
    if truths is not None:
        frame = with_truths(frame, read_table(truths), id_column, truth)
    elif truth not in frame.columns and truth_wanted is not None:
        frame = frame.with_columns(pl.lit(None, pl.String).alias(truth))
    use = TruthUse(Aims(confidence, cut, truth_cut), by, truth_wanted or 0)
    check_truth_use(frame, truth, use)
    known = truth_values(frame, truth)
    check_target(output, frame)
    wanted = scoring.wanted_file(output) if truth_wanted is not None else None
    read = [file for source in (table, truths) if source for file in table_files(source)]
    check_targets({"output": output, "report": report, "rows to fill in": wanted}, read)
    if not overwrite and (there := [path for path in (output, wanted) if path is not None and path.exists()]):
        raise UserError(f"{there[0]} exists already: choose another name, or replace it with --overwrite.")
    found = calibrated_table(frame, name, known, truth, use)
    write_table(found.table, output, keep_formulas)
    for line in show_calibration.calibration_lines(name, found.calibration):
        show.console.print(line)
    if found.wanted is not None and wanted is not None:
        write_table(found.wanted, wanted, keep_formulas)
        show.console.print(scoring.wanted_line(found.wanted.height, wanted, truth))
    if report is not None:
        show.write_page(report, calibration_page(Path(table).name, told_date(time.time()), name, found.calibration))
    if as_json:
        facts = {"output": str(output), "report": str(report) if report else None, "name": name}
        facts["truth_wanted"] = str(wanted) if wanted else None
        show.print_json(facts | {"calibration": show_calibration.calibration_facts(found.calibration)})
