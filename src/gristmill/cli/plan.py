"""``gristmill plan``: what an input file shares; without a file, the token arithmetic as a calculator."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli import config, jsonl, show, show_plan
from gristmill.cli.progress_view import ProgressView
from gristmill.cli.targets import check_targets
from gristmill.planning.token_arithmetic import JobSize, bills
from gristmill.scratch import scratch_folder
from gristmill.user_error import UserError

if TYPE_CHECKING:
    # Imported where it is used: the calculator needs none of it.
    from gristmill.engines.embedded.prompt import PromptTokens
    from gristmill.planning.job_plan import JobPlan

_MOST_REPLICAS = 10_000


def plan(
    input_file: Annotated[
        Path | None, typer.Argument(metavar="[INPUT.jsonl]", help="Requests, one JSON object a line.")
    ] = None,
    defaults: Annotated[
        Path | None, typer.Option(help="JSON object of body parameters for lines that do not set them.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Count tokens: a tokenizer.json, or a model of the embedded engine."),
    ] = None,
    pilot: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Run N rows for real, and say how long all will take.")
    ] = None,
    engine: config.EngineName = config.AUTOMATIC,
    model: config.Model = None,
    url: config.Url = None,
    engine_option: config.EngineOptions = None,
    concurrency: config.Concurrency = None,
    request_timeout: config.RequestTimeout = 600.0,
    wait: config.Wait = "30m",
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the prefix tree as a page.")] = None,
    prompt_price: Annotated[float, typer.Option(min=0, help="A hosted API's price of a million prompt tokens.")] = 0,
    output_price: Annotated[float, typer.Option(min=0, help="... and of a million output tokens.")] = 0,
    currency: config.Currency = "USD",
    rows: Annotated[int | None, typer.Option(min=1, help="Without INPUT: how many rows.")] = None,
    prefix_tokens: Annotated[int | None, typer.Option(min=0, help="... prompt tokens that all rows share.")] = None,
    row_tokens: Annotated[int | None, typer.Option(min=1, help="... prompt tokens of a row's own.")] = None,
    answer_tokens: Annotated[int, typer.Option(min=1, help="... tokens of an answer.")] = 10,
    slots: Annotated[int, typer.Option(min=1, help="... slots that keep a prefix each; shared cache: 1.")] = 1,
    turns: Annotated[int, typer.Option(min=1, help="... turns that a trimmed conversation keeps.")] = 50,
    replicas: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="How long --rows take with so many replicas of an engine, such as 1,10,100."
        ),
    ] = None,
    replica_rate: Annotated[
        float | None, typer.Option(metavar="ROWS", min=1e-6, help="... rows/s of one replica, as a pilot measured.")
    ] = None,
    servers: Annotated[int, typer.Option(min=1, help="... servers that the batches are spread over.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What the rows of INPUT.jsonl share, in which order they run best, and what that saves; with --pilot, how long
    they will take on an engine.

    Without INPUT: how many prompt tokens a job costs, by the way its rows are sent; or, with --replicas, how long it
    takes on more machines.
    """
    if replicas is not None:
        if input_file is not None or rows is None or replica_rate is None:
            raise UserError("With --replicas, give --rows and --replica-rate, and no input file.")
        _scale(_counts(replicas), rows, replica_rate, servers, as_json)
        return
    if input_file is None:
        if rows is None or prefix_tokens is None or row_tokens is None:
            raise UserError("Name an input file, or give --rows, --prefix-tokens and --row-tokens to do without one.")
        _calculate(JobSize(rows, prefix_tokens, row_tokens, answer_tokens, slots, turns), as_json)
        return
    from gristmill.batches.pilot import PilotSettings, pilot_file
    from gristmill.batches.token_plan import count_tokens
    from gristmill.planning.picture import plan_page
    from gristmill.planning.report import report
    from gristmill.planning.token_bill import Prices

    jsonl.check_readable(input_file)
    check_targets({"page": html}, [input_file, defaults])
    endpoint, read_defaults = jsonl.first_endpoint(input_file), jsonl.read_defaults(defaults)
    read_tokenizer = _tokenizer(tokenizer)
    found = _plan_file(input_file, endpoint, read_defaults)
    piloted, engine_name = None, engine
    if pilot is not None:
        engine_settings = config.settled(config.engine_settings(engine, model, url, engine_option))
        engine_name = engine_settings.engine
        start_wait = config.wait_seconds(wait, "--wait")
        settings = PilotSettings(engine_settings, pilot, concurrency, request_timeout, start_wait)
        with ProgressView() as view:
            piloted = asyncio.run(pilot_file(input_file, endpoint, read_defaults, found, settings, view.waiting))
    if read_tokenizer is not None:
        found = count_tokens(input_file, endpoint, read_defaults, found, read_tokenizer)
    prices = Prices(prompt_price, output_price, currency)
    said = report(found, prices, piloted, tokenizer)
    if html is not None:
        told_engine = f"the {engine_name} engine" + (f" and {model}" if model else "")
        of_pilot = told_engine if piloted else None
        show.write_page(html, plan_page(input_file.name, found, said, prices, of_pilot, time.time()))
    if as_json:
        show.print_json(said)
    else:
        show_plan.print_report(said)


def _plan_file(path: Path, endpoint: str, defaults: dict[str, Any] | None) -> JobPlan:
    from gristmill.batches.input_plan import Rejected, plan_file
    from gristmill.batches.input_reader import Limits

    try:
        with scratch_folder(config.default_data_folder() / "planning") as folder:
            return plan_file(path, endpoint, defaults, Limits(), folder)
    except Rejected as rejected:
        raise UserError(f"{path} cannot be run:\n{show.errors_text(rejected.errors)}") from None


def _tokenizer(name: str | None) -> PromptTokens | None:
    if name is None:
        return None
    from gristmill.engines.registry import open_tokenizer

    return open_tokenizer(name)


def _calculate(job: JobSize, as_json: bool) -> None:
    found = bills(job)
    if as_json:
        show.print_json([bill._asdict() for bill in found])
    else:
        show_plan.print_bills(found, job.rows)


def _counts(text: str) -> list[int]:
    found = [each.strip() for each in text.split(",")]
    if not all(each.isascii() and each.isdecimal() and 0 < int(each) <= _MOST_REPLICAS for each in found):
        raise UserError(f"--replicas takes numbers from 1 to {_MOST_REPLICAS:,} with commas between, not '{text}'.")
    return [int(each) for each in found]


def _scale(replicas: list[int], rows: int, rate: float, servers: int, as_json: bool) -> None:
    from gristmill.planning.capacity import Figures, job_seconds, simulate

    figures = Figures(rate)
    found = []
    for count in replicas:
        flow = simulate(figures, count, servers)
        found.append((count, flow, job_seconds(figures, flow, rows, min(servers, count))))
    if as_json:
        show.print_json([{"replicas": count, "seconds": seconds} | flow._asdict() for count, flow, seconds in found])
    else:
        show_plan.print_scale(found)
