"""``gristmill score``: a table and a rubric in, a table with scores out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.cli import compare_score, config, scoring, show, show_score, stdio, verify_score
from gristmill.cli.targets import check_targets
from gristmill.engines.registry import EngineSettings
from gristmill.scratch import scratch_folder
from gristmill.telemetry import log
from gristmill.user_error import UserError

if TYPE_CHECKING:
    # Imported where it is used: tables and templates would slow every other command's start.
    from gristmill.batches.host import HostSettings
    from gristmill.scoring.conductor import Escalation


def score(
    context: typer.Context,
    table: scoring.Table,
    rubric: scoring.Rubric,
    id_column: scoring.IdColumn,
    scale: scoring.ScaleText,
    output: scoring.Output = None,
    row: scoring.Row = None,
    examples: scoring.Examples = None,
    criteria: Annotated[str | None, typer.Option(help="Names, with commas between: a score each.")] = None,
    method: scoring.MethodName = None,
    reason: Annotated[bool, typer.Option("--reason", help="Ask for a short reason, too (generate).")] = False,
    name: scoring.ScoreName = "score",
    truth: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Right scores, of some rows or all; they are not sent.")
    ] = None,
    confidence: scoring.Confidence = 0.9,
    cut: scoring.Cut = None,
    truth_cut: scoring.TruthCut = None,
    by: scoring.By = None,
    truth_wanted: scoring.TruthWanted = None,
    most_off_scale: scoring.MostOffScale = 0.5,
    escalate: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A better model, asked for the scores that --when is about.")
    ] = None,
    when: Annotated[str | None, typer.Option(help="Such as 'entropy > 1.5 or 4 <= score <= 6'.")] = None,
    escalate_engine: Annotated[str | None, typer.Option(help="Its engine, where that is another.")] = None,
    escalate_url: Annotated[str | None, typer.Option(help="Its engine's address, where that is another.")] = None,
    report: scoring.Report = None,
    receipt: Annotated[
        Path | None, typer.Option(metavar="FILE", help="All that the scores came from; OUTPUT.receipt.json.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="RECEIPT", help="Score rows of its table again: exit 0 if identical, else 1.")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B", help="Score --rows by two models or options, such as m,precision=f32: what changes?"
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many, with --verify and --compare.")] = 100,
    prompt_price: scoring.PromptPrice = 0,
    output_price: scoring.OutputPrice = 0,
    currency: config.Currency = "USD",
    show_rows: scoring.ShowRows = None,
    audit: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Score N rows in several ways that should not matter.")
    ] = None,
    server: scoring.ServerUrl = None,
    engine: config.EngineName = config.AUTOMATIC,
    model: config.Model = None,
    url: config.Url = None,
    engine_option: config.EngineOptions = None,
    concurrency: config.Concurrency = None,
    request_timeout: config.RequestTimeout = 600.0,
    reuse_answers: config.ReuseAnswers = False,
    keep_formulas: scoring.KeepFormulas = False,
    wait: config.Wait = "30m",
    overwrite: scoring.Overwrite = False,
    as_json: scoring.AsJson = False,
    log_level: config.LogLevel = "warning",
) -> None:
    """Score every row of TABLE by a rubric; run again to resume. Exit code 1: some rows have no score."""
    from gristmill.batches.job_folder import Ending, JobFolder
    from gristmill.planning.token_bill import Prices
    from gristmill.scoring.calibrated_table import TruthUse
    from gristmill.scoring.calibration import Aims
    from gristmill.scoring.compare import CompareWish, Comparing
    from gristmill.scoring.conductor import Scoring
    from gristmill.scoring.frames import scoring_scratch
    from gristmill.scoring.questionnaire import ScoreOptions
    from gristmill.scoring.receipt import files_beside, write_receipt
    from gristmill.scoring.scale import parse_scale
    from gristmill.scoring.table import check_target, read_table, table_files, write_table

    log.configure(config.check_log_level(log_level))
    stdio.check_json(as_json, output)
    given = config.engine_settings(engine, model, url, engine_option)
    if verify is not None:
        verify_score.verify_score(verify, table, output, rows, given, server, wait, as_json)
    row_file = Path(row) if row is not None and "{" not in row else None
    options = ScoreOptions(
        id_column=id_column,
        row=scoring.read_text(row_file, "row template") if row_file is not None else row,
        examples=read_table(examples) if examples is not None else None,
        criteria=[each.strip() for each in (criteria or "").split(",") if each.strip()],
        method=method,
        reason=reason,
        name=name,
        truth=truth,
        most_off_scale=most_off_scale,
        truth_use=TruthUse(Aims(confidence, cut, truth_cut), by, truth_wanted or 0),
    )
    if compare is not None:
        unused: dict[str, object] = {
            "--output": output,
            "--receipt": receipt,
            "--audit": audit,
            "--show": show_rows,
            "--by": by,
        }
        unused |= {"--escalate": escalate, "--when": when, "--truth-cut": truth_cut, "--truth-wanted": truth_wanted}
        compare_score.check_alone(unused)
        host = scoring.host_settings(given, concurrency, request_timeout, wait)
        backends = compare_score.compare_backends(compare, given, host, server, reuse_answers)
        source = context.with_resource(stdio.readable_table(table)).source
        check_targets({"report": report}, [rubric, row_file, *table_files(source)])
        asked = read_table(source), scoring.read_text(rubric, "rubric"), parse_scale(scale)
        comparing = Comparing(
            *asked, options._replace(truth_use=TruthUse()), backends, CompareWish(rows, cut, confidence)
        )
        compare_score.run_and_tell(comparing, Path(table).name, report, as_json)
        return
    # Where nothing is computed here, no engine is chosen.
    settled = config.settled if server is None and show_rows is None else config.unsettled
    chosen = settled(given)
    host = scoring.host_settings(chosen, concurrency, request_timeout, wait)
    if escalate is None and escalate_engine is not None:
        raise UserError("Say which model to escalate to, with --escalate.")
    second = _second(host, settled, escalate, when, escalate_engine or engine, escalate_url)
    escalation = _escalation(second, when, server, reuse_answers)
    piped = context.with_resource(stdio.readable_table(table))
    frame = read_table(piped.source)
    conductor = Scoring(
        frame,
        scoring.read_text(rubric, "rubric"),
        parse_scale(scale),
        options,
        scoring.backend_of(server, host, reuse_answers),
        escalation,
    )
    if show_rows is not None:
        show_score.print_prompts(conductor.prompts(show_rows))
        return
    if audit is not None:
        with scoring.stops(False, scoring.BEGIN_ANEW), scratch_folder(scoring_scratch()) as work:
            found = conductor.audit(audit, work)
        if as_json:
            show.print_json([each._asdict() for each in found])
        else:
            show_score.print_differences(found)
        return
    if output is None:
        raise UserError("Say where the scores go, with -o OUTPUT; or look at prompts first, with --show 3.")
    target = context.with_resource(stdio.resting_place(output, scoring.suffix_of(piped.source)))
    check_target(target, frame)
    read = [rubric, row_file, *(file for tables in (piped.source, examples) if tables for file in table_files(tables))]
    receipt = verify_score.receipt_path(target, receipt, stdio.is_dash(output))
    if truth_wanted is not None and stdio.is_dash(output):
        raise UserError("Name a file for the scores, with -o: the rows of --truth-wanted are written beside it.")
    wanted = scoring.wanted_file(output) if truth_wanted is not None else None
    check_targets({"output": target, "report": report, "receipt": receipt, "rows to fill in": wanted}, read)
    folder, identity = JobFolder(target), config.arguments(context, Path(table), rubric)
    if piped.digest is not None:
        identity["table"] = piped.digest
    with folder.held():
        ending = folder.ending(identity)
        if ending is None:
            folder.check_output(overwrite, *([wanted] if wanted is not None else []))
            folder.begin(identity)
            with scoring.stops(resumable=not stdio.is_dash(output)):
                scored = conductor.run(folder.path)
            write_table(scored.table, target, keep_formulas)
            if wanted is not None and scored.wanted is not None:
                write_table(scored.wanted, wanted, keep_formulas)
            if receipt is not None:
                seen = files_beside(receipt, table, output)
                write_receipt(conductor.receipt(folder.path, scored, seen), receipt)
            if report is not None:
                page = conductor.page(Path(table).name, scored, Prices(prompt_price, output_price, currency))
                show.write_page(report, page)
            named = "standard output" if stdio.is_dash(output) else str(output)
            failed, lines = show_score.score_lines(scored.reports, named)
            told = show_score.score_facts(scored.reports, str(output), str(report) if report is not None else None)
            told["truth_wanted"] = str(wanted) if wanted is not None else None
            lines += show_score.agreement_lines(scored.reports)
            if wanted is not None and scored.wanted is not None:
                lines.append(scoring.wanted_line(scored.wanted.height, wanted, truth or ""))
            ending = Ending(identity, lines, failed, told)
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


def _second(
    first: HostSettings,
    settled: Callable[[EngineSettings], EngineSettings],
    model: str | None,
    when: str | None,
    engine: str,
    url: str | None,
) -> HostSettings | None:
    """Of the better model."""
    if model is None:
        if when is not None or url is not None:
            raise UserError("Say which model to escalate to, with --escalate.")
        return None
    return scoring.second_host(first, settled, EngineSettings(engine, model, url))


def _escalation(
    second: HostSettings | None, when: str | None, server: str | None, reuse_answers: bool
) -> Escalation | None:
    from gristmill.scoring.conductor import Escalation

    if second is None:
        return None
    if when is None:
        raise UserError("Say which scores are asked of the better model, too: --when 'entropy > 1.5', for example.")
    return Escalation(when, scoring.backend_of(server, second, reuse_answers))
