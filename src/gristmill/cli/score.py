"""``gristmill score``: a table and a rubric in, a table with scores out."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.cli import config, show, show_score
from gristmill.cli.progress_view import ProgressView
from gristmill.engines.registry import EngineSettings
from gristmill.telemetry import log
from gristmill.user_error import UserError

if TYPE_CHECKING:
    # Imported where it is used: tables and templates would slow every other command's start.
    import polars as pl

    from gristmill.batches.host import HostSettings
    from gristmill.batches.local_run import LocalRun
    from gristmill.client import Client
    from gristmill.scoring.audit import Difference
    from gristmill.scoring.job import Escalation
    from gristmill.scoring.passes import Backend
    from gristmill.scoring.plan import Planned
    from gristmill.wire.batch import Batch


def score(
    context: typer.Context,
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
    escalate: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A better model, asked for the scores that --when is about.")
    ] = None,
    when: Annotated[str | None, typer.Option(help="Such as 'entropy > 1.5 or 4 <= score <= 6'.")] = None,
    escalate_engine: Annotated[str | None, typer.Option(help="Its engine, where that is another.")] = None,
    escalate_url: Annotated[str | None, typer.Option(help="Its engine's address, where that is another.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="A page about the scores, as HTML.")] = None,
    prompt_price: Annotated[float, typer.Option(min=0, help="A hosted API's price of a million prompt tokens.")] = 0,
    output_price: Annotated[float, typer.Option(min=0, help="... and of a million output tokens.")] = 0,
    currency: config.Currency = "USD",
    show_rows: Annotated[
        int | None, typer.Option("--show", metavar="N", min=1, help="Print the prompts of N rows, and run nothing.")
    ] = None,
    audit: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Score N rows in several ways that should not matter.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(envvar="GRISTMILL_SERVER", help="Score on this server instead of an engine here.")
    ] = None,
    engine: config.EngineName = "openvino",
    model: config.Model = None,
    url: config.Url = None,
    engine_option: config.EngineOptions = None,
    concurrency: config.Concurrency = None,
    request_timeout: config.RequestTimeout = 600.0,
    reuse_answers: config.ReuseAnswers = False,
    keep_formulas: Annotated[
        bool, typer.Option("--keep-formulas", help="In CSV and TSV, leave cells that a spreadsheet would compute.")
    ] = False,
    wait: config.Wait = "30m",
    overwrite: Annotated[bool, typer.Option(help="Replace an OUTPUT that exists.")] = False,
    log_level: config.LogLevel = "warning",
) -> None:
    """Score every row of TABLE by a rubric; run again to resume. Exit code 1: some rows have no score."""
    from gristmill.batches.host import HostSettings
    from gristmill.batches.job_folder import Ending, JobFolder
    from gristmill.engines.http import shown
    from gristmill.planning.token_bill import Prices
    from gristmill.scoring.job import with_scores
    from gristmill.scoring.plan import Wanted, choose_method, plan
    from gristmill.scoring.report import About, page, score_reports
    from gristmill.scoring.scale import parse_scale
    from gristmill.scoring.table import read_table, write_table
    from gristmill.storage.open import StorageSettings

    log.configure(config.check_log_level(log_level))
    frame = read_table(table)
    wanted = Wanted(
        rubric=_text(rubric, "rubric"),
        scale=parse_scale(scale),
        id_column=id_column,
        row=_text(Path(row), "row template") if row is not None and "{" not in row else row,
        examples=read_table(examples) if examples is not None else None,
        criteria=[each.strip() for each in (criteria or "").split(",") if each.strip()],
        reason=reason,
        name=name,
        truth=truth,
        most_off_scale=most_off_scale,
    )
    engine_settings = config.engine_settings(engine, model, url, engine_option)
    answers = config.default_data_folder() / "answers.db"
    host = HostSettings(
        StorageSettings(Path()),
        engine_settings,
        concurrency,
        request_timeout,
        answers=answers,
        start_wait=config.wait_seconds(wait, "--wait"),
    )
    backend = _backend(server, host, reuse_answers)
    second = None
    if escalate is not None:
        second = host._replace(engine=_escalated(engine_settings, escalate, escalate_engine, escalate_url))
    elif when is not None or escalate_engine is not None or escalate_url is not None:
        raise UserError("Say which model to escalate to, with --escalate.")
    planned = plan(frame, wanted, choose_method(method, wanted, backend))
    if show_rows is not None:
        show_score.print_prompts(planned, min(show_rows, frame.height))
        return
    if audit is not None:
        show_score.print_differences(_audit(planned, min(audit, frame.height), backend))
        return
    target = _checked_target(output, report, frame)
    escalation = _escalation(second, when, server, planned, reuse_answers)
    folder, identity = JobFolder(target), config.arguments(context, Path(table), rubric)
    with folder.held():
        ending = folder.ending(identity)
        if ending is None:
            folder.check_output(overwrite)
            folder.begin(identity)
            scores = planned.job.run(folder.path, backend, escalation)
            write_table(with_scores(frame, scores, wanted.names), target, keep_formulas)
            ids = frame[id_column].to_list()
            reports = score_reports(ids, scores, wanted.names, wanted.scale, planned.truths, planned.job.text_of)
            if report is not None:
                where = f"{engine} engine" if server is None else f"on the server {shown(server)}"
                about = About(Path(table).name, planned.settings.instrument, backend.model, where, time.time())
                prices = Prices(prompt_price, output_price, currency)
                _write_page(report, page(about, reports, scores.batches, prices))
            failed, lines = show_score.score_lines(ids, scores, wanted.names, target)
            ending = Ending(identity, [*lines, *show_score.agreement_lines(reports)], failed)
            folder.end(ending)
        else:
            show.console.print("This was finished before; nothing is asked again.")
        for line in ending.lines:
            show.console.print(line)
    if ending.failed:
        raise typer.Exit(1)


def _escalated(first: EngineSettings, model: str, engine: str | None, url: str | None) -> EngineSettings:
    """Options of the first engine are for no other."""
    if engine is None or engine == first.engine:
        return first._replace(model=model, url=url or first.url)
    return EngineSettings(engine, model, url)


def _escalation(
    host: HostSettings | None, when: str | None, server: str | None, planned: Planned, reuse_answers: bool
) -> Escalation | None:
    from gristmill.scoring.condition import Condition
    from gristmill.scoring.job import Escalation
    from gristmill.scoring.prompt import GENERATE

    if host is None:
        return None
    if when is None:
        raise UserError("Say which scores are asked of the better model, too: --when 'entropy > 1.5', for example.")
    condition = Condition(when)
    condition.check(planned.settings.method)
    backend = _backend(server, host, reuse_answers)
    method = GENERATE if planned.settings.method is GENERATE else backend.labels_method
    return Escalation(condition, backend, method)


def _backend(server: str | None, host: HostSettings, reuse_answers: bool) -> Backend:
    if server is None:
        from gristmill.scoring.local import LocalBackend

        return LocalBackend(host, _run_to_end, reuse_answers)
    from gristmill.client import Client
    from gristmill.scoring.remote import RemoteBackend

    return RemoteBackend(Client(server), host.engine.model, _watched, reuse_answers)


def _run_to_end(local: LocalRun, settings: HostSettings) -> Batch:
    from gristmill.cli.run import run_to_end

    batch, speed = run_to_end(local, settings)
    show.console.print(" ".join(filter(None, (show.summary(batch), speed))))
    return batch


def _watched(client: Client, batch: Batch) -> Batch:
    with ProgressView() as view:
        batch = client.wait(batch, view.update, view.no_answer)
        speed = view.speed(batch)
    show.console.print(" ".join(filter(None, (show.summary(batch), speed))))
    return batch


def _checked_target(output: Path | None, report: Path | None, frame: pl.DataFrame) -> Path:
    """Where the scores go. Raises UserError where a file could not be written in the end."""
    from gristmill.scoring.table import check_target

    if output is None:
        raise UserError("Say where the scores go, with -o OUTPUT; or look at prompts first, with --show 3.")
    check_target(output, frame)
    for what, path in (("output", output), ("report", report)):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"There is no folder {path.parent} for the {what}: create it first.")
    return output


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"There is no file {path} for the {what}.") from None
    except UnicodeDecodeError:
        raise UserError(f"The {what} {path} is not UTF-8: save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read: {error.strerror}.") from None


def _audit(planned: Planned, rows: int, backend: Backend) -> list[Difference]:
    from gristmill.scoring.audit import audit, sample

    with tempfile.TemporaryDirectory(prefix="gristmill-audit-") as folder:
        chosen = sample(planned.job.rows, rows)
        return audit(planned.settings, chosen, planned.job.text_of, Path(folder), backend)


def _write_page(target: Path, text: str) -> None:
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from None
