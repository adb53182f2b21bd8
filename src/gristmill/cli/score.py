"""``gristmill score``: a table and a rubric in, a table with scores out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli import config, show
from gristmill.telemetry import log
from gristmill.user_error import UserError

if TYPE_CHECKING:
    # Imported where it is used: tables and templates would slow every other command's start.
    import polars as pl

    from gristmill.batches.host import HostSettings
    from gristmill.batches.local_run import LocalRun
    from gristmill.scoring.job import ScoreJob, Scores
    from gristmill.scoring.prompt import Instrument, Method
    from gristmill.scoring.report import ScoreReport
    from gristmill.wire.batch import Batch

_LISTED_ERRORS = 5


def score(
    table: Annotated[str, typer.Argument(help="CSV, TSV, JSONL or Parquet; a folder or a pattern of them.")],
    rubric: Annotated[Path, typer.Option(help="The rubric, a text file; the same for all rows.")],
    id_column: Annotated[str, typer.Option("--id", metavar="COLUMN", help="The column that names each row.")],
    scale: Annotated[str, typer.Option(help="0..10, or names from worst to best: no,maybe,yes.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the scores go: .csv, .tsv, .jsonl or .parquet.")
    ] = None,
    row: Annotated[
        str | None, typer.Option(metavar="FILE|TEMPLATE", help="What is sent of a row, in Jinja2; all columns.")
    ] = None,
    examples: Annotated[str | None, typer.Option(metavar="TABLE", help="Rows with their right scores.")] = None,
    criteria: Annotated[str | None, typer.Option(help="Names, with commas between: a score each.")] = None,
    method: Annotated[str | None, typer.Option(help="labels or generate; labels where the engine can.")] = None,
    reason: Annotated[bool, typer.Option("--reason", help="Ask for a short reason, too (generate).")] = False,
    name: Annotated[str, typer.Option(help="The column of the score.")] = "score",
    truth: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Right scores, to compare with; they are not sent.")
    ] = None,
    most_off_scale: Annotated[
        float, typer.Option(min=0, max=1, help="More probability off the scale than this: generate instead.")
    ] = 0.5,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="A page about the scores, as HTML.")] = None,
    prompt_price: Annotated[float, typer.Option(min=0, help="A hosted API's price of a million prompt tokens.")] = 0,
    output_price: Annotated[float, typer.Option(min=0, help="... and of a million output tokens.")] = 0,
    show_rows: Annotated[
        int | None, typer.Option("--show", metavar="N", min=1, help="Print N prompts, run none.")
    ] = None,
    engine: config.EngineName = "openvino",
    model: config.Model = None,
    url: config.Url = None,
    engine_option: config.EngineOptions = None,
    concurrency: config.Concurrency = None,
    request_timeout: config.RequestTimeout = 600.0,
    reuse_answers: config.ReuseAnswers = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an OUTPUT that exists.")] = False,
    log_level: config.LogLevel = "warning",
) -> None:
    """Score every row of TABLE by a rubric; run again to resume. Exit code 1: some rows have no score."""
    from gristmill.batches.host import HostSettings
    from gristmill.scoring.job import ScoreJob, ScoreSettings, check_names, with_scores
    from gristmill.scoring.local import LocalPasses, served_model
    from gristmill.scoring.passes import Pass
    from gristmill.scoring.prompt import METHODS
    from gristmill.scoring.report import Prices, page, score_reports
    from gristmill.scoring.table import check_ids, check_target, read_table, truth_values, write_table
    from gristmill.storage.open import StorageSettings

    log.configure(config.check_log_level(log_level))
    if method is not None and method not in METHODS:
        raise UserError(f"There is no method '{method}': choose labels or generate.")
    names = _names(criteria) or [name]
    frame = read_table(table)
    check_ids(frame, id_column)
    check_names(frame, names)
    truths = truth_values(frame, truth) if truth else None
    settings = config.engine_settings(engine, model, url, engine_option)
    chosen = METHODS[method] if method else _default_method(settings, reason)
    if reason and chosen.name == "labels":
        raise UserError("The method labels gives no reasons: use --method generate with --reason.")
    template = _template(row, frame, [id_column] + ([truth] if truth else []))
    instrument = _instrument(rubric, frame, template, scale, names if criteria else [], examples, names, reason)
    if show_rows is not None:
        job = ScoreJob(frame, template, ScoreSettings(instrument, chosen, model or "", most_off_scale))
        _show(job, instrument, chosen, min(show_rows, frame.height))
        return
    if output is None:
        raise UserError("Say where the scores go, with -o OUTPUT; or look at prompts first, with --show 3.")
    check_target(output)
    if report is not None and not report.parent.is_dir():
        raise UserError(f"There is no folder {report.parent} for the report: create it first.")
    state = output.parent / f".{output.name}.gristmill"
    _check_output(output, state, overwrite)
    served = served_model(settings)
    job = ScoreJob(frame, template, ScoreSettings(instrument, chosen, served, most_off_scale))
    answers = config.default_data_folder() / "answers.db"
    host = HostSettings(StorageSettings(state), settings, concurrency, request_timeout, answers=answers)
    runner = LocalPasses(host, _run_to_end, reuse_answers)
    scores = job.run(state, lambda pass_name, each: Pass(pass_name, each, served, runner))
    write_table(with_scores(frame, scores, names), output)
    reports = score_reports(frame[id_column].to_list(), scores, names, instrument.scale, truths)
    if report is not None:
        _write_page(report, page(Path(table).name, served, reports, scores.batches, Prices(prompt_price, output_price)))
    shutil.rmtree(state)
    failed = _say(frame[id_column], scores, names, output)
    for each in reports:
        _say_agreement(each)
    if failed:
        raise typer.Exit(1)


def _names(criteria: str | None) -> list[str]:
    names = [each.strip() for each in (criteria or "").split(",") if each.strip()]
    if len(set(names)) < len(names):
        raise UserError(f"A criterion is named twice in '{criteria}'.")
    return names


def _default_method(settings: Any, reason: bool) -> Method:
    from gristmill.scoring.local import default_method
    from gristmill.scoring.prompt import GENERATE

    return GENERATE if reason else default_method(settings)


def _template(row: str | None, frame: pl.DataFrame, hidden: list[str]) -> Any:
    from gristmill.scoring.template import RowTemplate

    source = row
    if row is not None and "{" not in row:
        source = _text(Path(row), "row template")
    return RowTemplate(source, frame.columns, [each for each in frame.columns if each not in hidden])


def _instrument(
    rubric: Path, frame: pl.DataFrame, template: Any, scale: str, criteria: list[str], examples: str | None,
    names: list[str], reason: bool,
) -> Instrument:  # fmt: skip
    from gristmill.scoring.examples import read_examples
    from gristmill.scoring.prompt import Instrument
    from gristmill.scoring.scale import parse_scale
    from gristmill.scoring.table import read_table
    from gristmill.scoring.template import render_rubric

    parsed = parse_scale(scale)
    values = {"scale": parsed.text, "criteria": ", ".join(criteria)}
    text = render_rubric(_text(rubric, "rubric"), frame.columns, values)
    if not text:
        raise UserError(f"The rubric {rubric} is empty.")
    shown = read_examples(read_table(examples), template, names, criteria, parsed) if examples else []
    return Instrument(text, parsed, tuple(criteria), shown, reason)


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"There is no file {path} for the {what}.") from None
    except UnicodeDecodeError:
        raise UserError(f"The {what} {path} is not UTF-8: save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read: {error.strerror}.") from None


def _show(job: ScoreJob, instrument: Instrument, method: Method, rows: int) -> None:
    from gristmill.scoring.prompt import row_messages, shared_body

    for message in shared_body(instrument, method)["messages"]:
        print(f"--- {message['role']} (all rows)\n{message['content']}")
    for number in range(rows):
        for criterion in instrument.criteria or (None,):
            for message in row_messages(job.text_of(number), criterion, method):
                print(f"--- {message['role']} (row {number + 1})\n{message['content']}")


def _check_output(output: Path, state: Path, overwrite: bool) -> None:
    if not output.parent.is_dir():
        raise UserError(f"There is no folder {output.parent} for the output: create it first.")
    if output.exists() and not state.exists() and not overwrite:
        raise UserError(f"{output} exists already: choose another name, or replace it with --overwrite.")


def _run_to_end(local: LocalRun, settings: HostSettings) -> Batch:
    from gristmill.cli.run import run_to_end

    batch, speed = run_to_end(local, settings)
    show.console.print(" ".join(filter(None, (show.summary(batch), speed))))
    return batch


def _write_page(target: Path, text: str) -> None:
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from None


def _say_agreement(report: ScoreReport) -> None:
    if report.agreement is None:
        return
    show.console.print(f"{report.name} against the right scores, {report.agreement.rows:,} rows:")
    for measure in report.agreement.measures:
        interval = "undefined"
        if measure.value is not None:
            interval = f"{measure.value:.3f} ({measure.low:.3f} to {measure.high:.3f})"
        show.console.print(f"  {measure.name}: {interval}")


def _say(ids: pl.Series, scores: Scores, names: list[str], output: Path) -> int:
    """Says what came out; how many scores are missing."""
    failed = [
        (ids[row], names[place], outcome.error)
        for row, outcomes in enumerate(scores.outcomes)
        for place, outcome in enumerate(outcomes)
        if outcome.score is None
    ]
    total = len(ids) * len(names)
    show.console.print(f"{total - len(failed):,} of {total:,} scores: {output}")
    for row_id, name, error in failed[:_LISTED_ERRORS]:
        show.console.print(f"  {row_id}: no {name}: {error}")
    if len(failed) > _LISTED_ERRORS:
        show.console.print(f"  and {len(failed) - _LISTED_ERRORS:,} more: see the column {names[0]}_error")
    return len(failed)
