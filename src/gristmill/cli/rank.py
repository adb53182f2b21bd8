"""``gristmill rank``: a table and a rubric in, its best rows out, with what that promises."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gristmill.cli import config, scoring, show, show_rank, stdio
from gristmill.cli.targets import check_targets
from gristmill.engines.registry import EngineSettings
from gristmill.extras import require
from gristmill.telemetry import log
from gristmill.user_error import UserError

if TYPE_CHECKING:
    # Imported where it is used: tables and templates would slow every other command's start.
    from gristmill.scoring.backend import ScoreBackend
    from gristmill.scoring.rank.plan import RankPlan
    from gristmill.scoring.rank.wish import RankWish

_CERTIFICATE = ".certificate.json"


def rank(
    context: typer.Context,
    table: scoring.Table,
    rubric: scoring.Rubric,
    id_column: scoring.IdColumn,
    scale: scoring.ScaleText,
    top: Annotated[int | None, typer.Option(metavar="K", help="How many of the best rows are wanted.")] = None,
    cut: Annotated[
        str | None, typer.Option(help="Or all rows above a cut: 'score >= 8'; also with >, <= or <.")
    ] = None,
    recall: Annotated[float, typer.Option(help="The share of them that is found at least.")] = 0.95,
    precision: Annotated[
        float | None, typer.Option(help="With --cut: rows may be accepted unjudged, so many of them right at least.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="How sure that is.")] = 0.95,
    output: scoring.Output = None,
    proxy: Annotated[
        str,
        typer.Option(
            metavar="auto|features|embeddings:MODEL|COLUMN|MODEL",
            help="What guesses the scores: the words of the rows, their embeddings, a column, a small model.",
        ),
    ] = "auto",
    proxy_engine: Annotated[str | None, typer.Option(help="The proxy model's engine, where that is another.")] = None,
    proxy_url: Annotated[str | None, typer.Option(help="Its engine's address, where that is another.")] = None,
    budget: Annotated[int | None, typer.Option(metavar="ROWS", help="Judge no more rows than this.")] = None,
    or_all: Annotated[
        bool, typer.Option("--or-all", help="Where the budget does not do, go on past it, up to every row.")
    ] = False,
    assume: Annotated[
        str | None, typer.Option(help="thinning: take something for granted of the proxy, which saves most.")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(metavar="R", help="Compare the rows found in pairs, R times each: tiers that can be told apart."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Judge the pilot only, and say what each step costs.")] = False,
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random.")] = 0,
    row: scoring.Row = None,
    examples: scoring.Examples = None,
    method: scoring.MethodName = None,
    name: scoring.ScoreName = "score",
    truth: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Right scores, to compare with; they are not sent.")
    ] = None,
    most_off_scale: scoring.MostOffScale = 0.5,
    report: scoring.Report = None,
    prompt_price: scoring.PromptPrice = 0,
    output_price: scoring.OutputPrice = 0,
    currency: config.Currency = "USD",
    server: scoring.ServerUrl = None,
    engine: config.EngineName = config.AUTOMATIC,
    model: Annotated[
        str | None,
        typer.Option(
            "--judge", "--model", envvar="GRISTMILL_MODEL", help="The judge: a model's name, as in gristmill score."
        ),
    ] = None,
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
    """Find the best rows of TABLE without judging every one; run again to resume. Exit code 1: not certified."""
    # Before what is imported here needs it.
    require("sklearn", "score")
    from gristmill.batches.job_folder import Ending, JobFolder, write_whole
    from gristmill.planning.token_bill import Prices
    from gristmill.scoring.questionnaire import Questionnaire, ScoreOptions
    from gristmill.scoring.rank.choice import choose_proxy
    from gristmill.scoring.rank.embeddings_proxy import EmbeddingsProxy
    from gristmill.scoring.rank.plan import rank_plan
    from gristmill.scoring.rank.proxies import ModelProxy
    from gristmill.scoring.rank.rank_receipt import rank_receipt
    from gristmill.scoring.rank.ranking import Ranking
    from gristmill.scoring.rank.report import certificate_facts, rank_page, sentences
    from gristmill.scoring.rank.wish import RankWish
    from gristmill.scoring.receipt import files_beside
    from gristmill.scoring.scale import parse_scale
    from gristmill.scoring.table import check_target, read_table, table_files, write_table
    from gristmill.wire.json import encode

    log.configure(config.check_log_level(log_level))
    stdio.check_json(as_json, output)
    row_file = Path(row) if row is not None and "{" not in row else None
    options = ScoreOptions(
        id_column=id_column,
        row=scoring.read_text(row_file, "row template") if row_file is not None else row,
        examples=read_table(examples) if examples is not None else None,
        method=method,
        name=name,
        truth=truth,
        most_off_scale=most_off_scale,
    )
    settled = config.settled if server is None else config.unsettled
    chosen = settled(config.engine_settings(engine, model, url, engine_option))
    host = scoring.host_settings(chosen, concurrency, request_timeout, wait)

    def proxy_backend(small: str) -> ScoreBackend:
        settings = EngineSettings(proxy_engine or engine, small, proxy_url)
        return scoring.backend_of(server, scoring.second_host(host, settled, settings), reuse_answers)

    piped = context.with_resource(stdio.readable_table(table))
    frame = read_table(piped.source)
    judge = scoring.backend_of(server, host, reuse_answers)
    wish = RankWish(top, cut, recall, precision, confidence, budget, assume, or_all, seed, rounds)
    questionnaire = Questionnaire(frame, scoring.read_text(rubric, "rubric"), parse_scale(scale), options, judge)
    guessing = choose_proxy(proxy, frame, questionnaire, judge, proxy_backend)
    if (proxy_engine or proxy_url) and not isinstance(guessing, ModelProxy | EmbeddingsProxy):
        raise UserError(
            f"--proxy-engine and --proxy-url are about a proxy's model, but the proxy is {guessing.told}: name the "
            "model with --proxy, or leave them out."
        )
    ranking = Ranking(frame, questionnaire, judge, guessing, wish, truth, show.console.print)
    about = ranking.about(Path(table).name)
    kept = output is not None and not stdio.is_dash(output)
    suffix = scoring.suffix_of(piped.source)
    target = context.with_resource(stdio.resting_place(output or Path(stdio.DASH), suffix))
    certificate = target.with_name(target.name + _CERTIFICATE)
    check_target(target, frame)
    read = [rubric, row_file, *(file for tables in (piped.source, examples) if tables for file in table_files(tables))]
    check_targets({"output": target, "report": report, "certificate": certificate}, read)
    folder, identity = JobFolder(target), config.arguments(context, Path(table), rubric)
    if piped.digest is not None:
        identity["table"] = piped.digest
    with folder.held():
        ending = folder.ending(identity)
        if ending is None:
            folder.check_output(overwrite, certificate)
            folder.begin(identity)
            with scoring.stops(resumable=kept):
                if plan:
                    _tell_plan(rank_plan(ranking.pilot(folder.path)), wish, kept, as_json)
                    return
                ranked = ranking.run(folder.path)
            write_table(ranked.table, target, keep_formulas)
            seen = files_beside(certificate, table, target)
            receipt = rank_receipt(questionnaire, folder.path, frame.height, seen.table if kept else None)
            facts = certificate_facts(about, ranked) | {"receipt": msgspec.to_builtins(receipt)}
            write_whole(certificate, encode(facts))
            if report is not None:
                prices = Prices(prompt_price, output_price, currency)
                page = rank_page(about, ranked, questionnaire.ids, questionnaire.text_of, prices)
                show.write_page(report, page)
            told = facts | {"output": str(output) if kept else None, "report": str(report) if report else None}
            ending = Ending(identity, sentences(about, ranked), int(not facts["certified"]), told)
            if output is None and not as_json:
                show_rank.print_best(ranked, list(questionnaire.ids))
            if facts["certified"]:
                # What was judged for nothing is gone on from with a larger budget.
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


def _tell_plan(plan: RankPlan, wish: RankWish, kept: bool, as_json: bool) -> None:
    if as_json:
        show.print_json(show_rank.plan_facts(plan))
        return
    show_rank.print_plan(plan, wish)
    if kept:
        show.console.print("The pilot is kept: the same command without --plan goes on from it.")
