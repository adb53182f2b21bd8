"""``gristmill bench``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from gristmill.cli import config, jsonl, show
from gristmill.cli.progress_view import ProgressView
from gristmill.printable import printable
from gristmill.telemetry import log
from gristmill.wire.batch import Batch

if TYPE_CHECKING:
    from gristmill.bench.receipt import BenchReceipt


def bench(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.jsonl", help="Rows, as for `run`; chat completions.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the table, the plot and the receipt.")],
    engine: config.EngineName = config.AUTOMATIC,
    model: config.Model = None,
    url: config.Url = None,
    engine_option: config.EngineOptions = None,
    strategies: Annotated[str, typer.Option(help="Which strategies, separated by commas; all otherwise.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="How often each strategy has its turn.")] = 3,
    rows: Annotated[int, typer.Option(min=2, help="Rows of a turn, for strategies that send one at a time.")] = 16,
    labels: Annotated[str, typer.Option(help="The answers there are: 0..10, or good,bad.")] = "",
    job_rows: Annotated[int, typer.Option("--for", min=1, help="How many rows to forecast the time of.")] = 170_000,
    concurrency: config.Concurrency = None,
    request_timeout: config.RequestTimeout = 600.0,
    wait: config.Wait = "30m",
    log_level: config.LogLevel = "error",
) -> None:
    """Measure the ways to send rows, side by side, on your engine and your rows."""
    from gristmill.bench.conductor import Bench, BenchFolder, BenchSettings

    log.configure(config.check_log_level(log_level))
    jsonl.check_readable(input_file)
    settings = BenchSettings(
        config.settled(config.engine_settings(engine, model, url, engine_option)),
        [name.strip() for name in strategies.split(",") if name.strip()],
        rounds,
        rows,
        labels,
        job_rows,
        concurrency,
        request_timeout,
        config.wait_seconds(wait, "--wait"),
    )
    conductor = Bench(input_file, settings)
    folder = BenchFolder(output)
    receipt = asyncio.run(conductor.run(_print_turn, _StartView))
    written = folder.write(receipt)
    _print(receipt)
    console = show.out()
    console.print(f"\n{receipt.advice}\n")
    console.print(f"Written to {output}: {', '.join(written)}")
    if "bench.png" not in written:
        console.print("No bench.png: pip install 'gristmill[bench]' for the plot.")


class _StartView(ProgressView):
    """Of an engine's start; no batch follows."""

    def ended(self, batch: Batch) -> None:
        pass


def _print_turn(strategy: str, number: int, rows: int, seconds: float) -> None:
    show.console.print(f"round {number}: {strategy}, {rows} rows in {seconds:,.1f} s")


def _print(receipt: BenchReceipt) -> None:
    from gristmill.bench.advice import span, too_few_rows
    from gristmill.bench.page import COLUMNS, cells, errors_of

    table = Table("strategy", box=None, header_style="bold")
    for title in (*(column.title for column in COLUMNS), f"{receipt.job_rows:,} rows"):
        table.add_column(title, justify="right")
    for each in receipt.strategies:
        if not each.missing:
            table.add_row(each.name, *cells(each), span(each.forecast) if each.forecast else "-")
    show.print_table(table)
    console = show.out()
    for each in receipt.strategies:
        if each.missing:
            console.print(f"{each.name}: not measured, {printable(each.missing)}")
        elif each.rows_for_forecast:
            console.print(f"{each.name}: {too_few_rows(each)}")
        for error in errors_of(each):
            console.print(f"{each.name}: some rows failed: {printable(error)}")
