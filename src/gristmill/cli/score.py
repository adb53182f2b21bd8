"""``gristmill score``: a table and a rubric in, a table with scores out."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.cli import config, show, show_score, stdio
from gristmill.cli.progress_view import ProgressView
from gristmill.cli.targets import check_targets
from gristmill.engines.registry import EngineSettings
from gristmill.scratch import scratch_folder
from gristmill.telemetry import log
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

if TYPE_CHECKING:
    # Imported where it is used: tables and templates would slow every other command's start.
    from gristmill.batches.host import HostSettings
    from gristmill.scoring.backend import ScoreBackend
    from gristmill.scoring.conductor import Escalation


def score(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="CSV, TSV, JSONL or Parquet; a folder or a pattern; - for stdin.")],
    rubric: Annotated[Path, typer.Option(help="The rubric, a text file; the same for all rows.")],
    id_column: Annotated[str, typer.Option("--id", metavar="COLUMN", help="The column that names each row.")],
    scale: Annotated[str, typer.Option(help="0..10, or names from worst to best: no,maybe,yes.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the scores go: .csv, .tsv, .jsonl, .parquet; - for stdout."),
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
    engine: config.EngineName = config.AUTOMATIC,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
    log_level: config.LogLevel = "warning",
) -> None:
    """Score every row of TABLE by a rubric; run again to resume. Exit code 1: some rows have no score."""
    from gristmill.batches.host import HostSettings
    from gristmill.batches.job_folder import Ending, JobFolder
    from gristmill.planning.token_bill import Prices
    from gristmill.scoring.conductor import ScoreOptions, Scoring
    from gristmill.scoring.frames import scoring_scratch
    from gristmill.scoring.scale import parse_scale
    from gristmill.scoring.table import check_target, read_table, table_files, write_table
    from gristmill.storage.open import StorageSettings

    log.configure(config.check_log_level(log_level))
    stdio.check_json(as_json, output)
    row_file = Path(row) if row is not None and "{" not in row else None
    options = ScoreOptions(
        id_column=id_column,
        row=_text(row_file, "row template") if row_file is not None else row,
        examples=read_table(examples) if examples is not None else None,
        criteria=[each.strip() for each in (criteria or "").split(",") if each.strip()],
        method=method,
        reason=reason,
        name=name,
        truth=truth,
        most_off_scale=most_off_scale,
    )
    # Where nothing is computed here, no engine is chosen.
    settled = config.settled if server is None and show_rows is None else config.unsettled
    host = HostSettings(
        StorageSettings(Path()),
        settled(config.engine_settings(engine, model, url, engine_option)),
        concurrency,
        request_timeout,
        answers=config.default_data_folder() / "answers.db",
        start_wait=config.wait_seconds(wait, "--wait"),
    )
    if escalate is None and escalate_engine is not None:
        raise UserError("Say which model to escalate to, with --escalate.")
    second = _second(host, settled, escalate, when, escalate_engine or engine, escalate_url)
    escalation = _escalation(second, when, server, reuse_answers)
    piped = context.with_resource(stdio.readable_table(table))
    frame = read_table(piped.source)
    scoring = Scoring(
        frame, _text(rubric, "rubric"), parse_scale(scale), options, _backend(server, host, reuse_answers), escalation
    )
    if show_rows is not None:
        show_score.print_prompts(scoring.prompts(show_rows))
        return
    if audit is not None:
        with _stops(resumable=False), scratch_folder(scoring_scratch()) as work:
            found = scoring.audit(audit, work)
        if as_json:
            show.print_json([each._asdict() for each in found])
        else:
            show_score.print_differences(found)
        return
    if output is None:
        raise UserError("Say where the scores go, with -o OUTPUT; or look at prompts first, with --show 3.")
    target = context.with_resource(stdio.resting_place(output, _suffix(piped.source)))
    check_target(target, frame)
    read = [rubric, row_file, *(file for tables in (piped.source, examples) if tables for file in table_files(tables))]
    check_targets({"output": target, "report": report}, read)
    folder, identity = JobFolder(target), config.arguments(context, Path(table), rubric)
    if piped.digest is not None:
        identity["table"] = piped.digest
    with folder.held():
        ending = folder.ending(identity)
        if ending is None:
            folder.check_output(overwrite)
            folder.begin(identity)
            with _stops(resumable=not stdio.is_dash(output)):
                scored = scoring.run(folder.path)
            write_table(scored.table, target, keep_formulas)
            if report is not None:
                page = scoring.page(Path(table).name, scored, Prices(prompt_price, output_price, currency))
                show.write_page(report, page)
            named = "standard output" if stdio.is_dash(output) else str(output)
            failed, lines = show_score.score_lines(scored.reports, named)
            told = show_score.score_facts(scored.reports, str(output), str(report) if report is not None else None)
            ending = Ending(identity, [*lines, *show_score.agreement_lines(scored.reports)], failed, told)
            folder.end(ending)
        else:
            show.console.print("This was finished before; nothing is asked again.")
        if stdio.is_dash(output):
            stdio.write_files(target)
        for line in ending.lines:
            show.console.print(line)
        if as_json:
            show.print_json(ending.report)
    if ending.failed:
        raise typer.Exit(1)


class _PassView(ProgressView):
    """A batch of several: what came of it is said when it has ended."""

    def ended(self, batch: Batch) -> None:
        show.console.print(" ".join(filter(None, (show.summary(batch), self.speed(batch)))))


@contextmanager
def _stops(resumable: bool) -> Iterator[None]:
    """A signal ends the command, with a word on how to go on."""
    from gristmill.scoring.backend import Interrupted

    # What exists now stays: to walk through it at every full collection would stop the event loop for a tenth of a
    # second.
    gc.freeze()
    try:
        yield
    except Interrupted as stop:
        if resumable:
            show.console.print(f"Stopped. What is done is kept in {stop.folder}; the same command goes on from there.")
        else:
            show.console.print("Stopped. Nothing is kept to go on from: name a file with -o to be able to resume.")
        raise typer.Exit(130) from None


def _second(
    first: HostSettings,
    settled: Callable[[EngineSettings], EngineSettings],
    model: str | None,
    when: str | None,
    engine: str,
    url: str | None,
) -> HostSettings | None:
    """Of the better model. Options of the first engine are for no other."""
    if model is None:
        if when is not None or url is not None:
            raise UserError("Say which model to escalate to, with --escalate.")
        return None
    settings = settled(EngineSettings(engine, model, url))
    if settings.engine == first.engine.engine:
        settings = settings._replace(url=url or first.engine.url, options=first.engine.options)
    return first._replace(engine=settings)


def _escalation(
    second: HostSettings | None, when: str | None, server: str | None, reuse_answers: bool
) -> Escalation | None:
    from gristmill.scoring.conductor import Escalation

    if second is None:
        return None
    if when is None:
        raise UserError("Say which scores are asked of the better model, too: --when 'entropy > 1.5', for example.")
    return Escalation(when, _backend(server, second, reuse_answers))


def _backend(server: str | None, host: HostSettings, reuse_answers: bool) -> ScoreBackend:
    if server is None:
        from gristmill.scoring.local import LocalBackend

        return LocalBackend(host, reuse_answers, _PassView, (signal.SIGINT, signal.SIGTERM))
    from gristmill.client import Client
    from gristmill.scoring.remote import RemoteBackend

    return RemoteBackend(Client(server), host.engine.model, reuse_answers, _PassView)


def _suffix(source: str) -> str:
    """Of a table that goes to standard output: as it came, where that can be read as text."""
    suffix = Path(source).suffix.lower().replace("ndjson", "jsonl")
    return suffix if suffix in (".csv", ".tsv", ".jsonl") else ".csv"


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"There is no file {path} for the {what}.") from None
    except UnicodeDecodeError:
        raise UserError(f"The {what} {path} is not UTF-8: save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read: {error.strerror}.") from None
