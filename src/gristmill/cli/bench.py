"""``gristmill bench``."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

import gristmill
from gristmill.cli import config, jsonl, show
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.telemetry import log
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from gristmill.bench.measure import Plan
    from gristmill.bench.receipt import Receipt
    from gristmill.bench.strategies import Rows, Strategy

#: Rows of one turn, at most, for ways that have many in flight.
_MOST_AT_ONCE = 256
#: Where slots are few, each should answer this many rows in a turn, as each computes the shared prefix first.
_FEW_SLOTS, _TURNS_A_SLOT = 16, 8


def bench(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.jsonl", help="Rows, as for `run`; chat completions.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the table, the plot and the receipt.")],
    engine: config.EngineName = "openvino",
    model: config.Model = None,
    url: config.Url = None,
    engine_option: config.EngineOptions = None,
    strategies: Annotated[str, typer.Option(help="Which ways, separated by commas; all of them otherwise.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="How often each way has its turn.")] = 3,
    rows: Annotated[int, typer.Option(min=2, help="Rows of one turn, for ways that send them one at a time.")] = 16,
    labels: Annotated[str, typer.Option(help="The answers there are: 0..10, or good,bad.")] = "",
    job_rows: Annotated[int, typer.Option("--for", min=1, help="How many rows to forecast the time of.")] = 170_000,
    concurrency: config.Concurrency = None,
    request_timeout: config.RequestTimeout = 600.0,
    log_level: config.LogLevel = "error",
) -> None:
    """Measure the ways to send rows, side by side, on your engine and your rows."""
    from gristmill.bench.measure import Plan
    from gristmill.bench.page import page, write_png
    from gristmill.bench.rows import read_rows

    log.configure(config.check_log_level(log_level))
    jsonl.check_readable(input_file)
    chosen = _chosen(strategies)
    _make_folder(output)
    read = read_rows(input_file, rounds * max(rows, _MOST_AT_ONCE), model)
    if len(read) < 2 * rounds:
        raise UserError(f"{input_file} has {len(read)} rows: too few for {rounds} rounds of at least two.")
    wanted = Plan(rounds, min(rows, len(read) // rounds), len(read) // rounds)
    settings = config.engine_settings(engine, model, url, engine_option)
    receipt = asyncio.run(
        _measure(settings, chosen, input_file, read, wanted, _labels(labels), job_rows, concurrency, request_timeout)
    )
    encoded = msgspec.json.format(msgspec.json.encode(receipt), indent=1)
    (output / "bench.json").write_bytes(encoded + b"\n")
    (output / "bench.html").write_text(page(receipt))
    drawn = write_png(receipt, output / "bench.png")
    _print(receipt)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\n{receipt.advice}\n", markup=False)
    console.print(f"Written to {output}: bench.json, bench.html" + (", bench.png" if drawn else ""), markup=False)
    if not drawn:
        console.print("No bench.png: pip install 'gristmill[bench]' for the plot.", markup=False)


async def _measure(
    settings: EngineSettings,
    chosen: Sequence[Strategy],
    input_file: Path,
    rows: Rows,
    wanted: Plan,
    labels: list[str],
    job_rows: int,
    concurrency: int | None,
    request_timeout: float,
) -> Receipt:
    from gristmill.bench.advice import advise
    from gristmill.bench.machine import this_machine
    from gristmill.bench.measure import measure
    from gristmill.bench.receipt import Receipt
    from gristmill.dispatch.dispatcher import Dispatcher
    from gristmill.engines.http import shown

    engine = create_engine(settings)
    await engine.start()
    try:
        dispatcher = Dispatcher(engine, window=concurrency, timeout=request_timeout)
        capabilities = engine.capabilities
        # Enough for the window to be full most of the time; as many as may be, where its size is yet to be found out.
        slots = capabilities.slots if capabilities.slots_known else _MOST_AT_ONCE
        full = _TURNS_A_SLOT * slots if slots <= _FEW_SLOTS else 2 * slots
        plan = wanted._replace(rows_at_once=min(wanted.rows_at_once, max(wanted.rows, full)))
        found = await measure(dispatcher, chosen, rows, plan, labels, job_rows, _say)
    finally:
        await engine.stop()
    with input_file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Receipt(
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        gristmill=gristmill.__version__,
        machine=this_machine(),
        engine=engine.name,
        model=rows[0].model,
        # A password in an address is nobody's business.
        url=",".join(map(shown, settings.url.split(","))) if settings.url else None,
        options=settings.options,
        slots=capabilities.slots,
        context_length=capabilities.context_length,
        rows_file=input_file.name,
        rows_sha256=digest,
        rounds=plan.rounds,
        rows=plan.rows,
        rows_at_once=plan.rows_at_once,
        labels=labels,
        strategies=found,
        advice=advise(found),
    )


def _make_folder(folder: Path) -> None:
    """Before anything is measured: hours may go by until something is written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench.json").touch()
    except OSError as error:
        raise UserError(f"Nothing can be written to {folder}: {error.strerror}.") from None


def _say(strategy: str, number: int, rows: int, seconds: float) -> None:
    show.console.print(f"round {number}: {strategy}, {rows} rows in {seconds:,.1f} s", markup=False)


def _chosen(names: str) -> list[Strategy]:
    from gristmill.bench.strategies import STRATEGIES

    by_name = {each.name: each for each in STRATEGIES}
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(by_name)
    for name in wanted:
        if name not in by_name:
            raise UserError(f"There is no strategy '{name}'. Choose from: {', '.join(by_name)}.")
    return [by_name[name] for name in wanted]


def _labels(text: str) -> list[str]:
    first, dots, last = text.partition("..")
    if dots:
        if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
            raise UserError(f"The labels '{text}' are no range: write it like 0..10, or name the labels: good,bad.")
        return [str(number) for number in range(int(first), int(last) + 1)]
    return [label.strip() for label in text.split(",") if label.strip()]


def _print(receipt: Receipt) -> None:
    from gristmill.bench.advice import span
    from gristmill.bench.page import COLUMNS, cells

    table = Table("strategy", box=None, header_style="bold")
    for title in (*COLUMNS, f"{_job_rows(receipt):,} rows"):
        table.add_column(title, justify="right")
    for each in receipt.strategies:
        if not each.missing:
            table.add_row(each.name, *cells(each), span(each.forecast) if each.forecast else "")
    show.print_table(table)
    console = Console(highlight=False, soft_wrap=True)
    for each in receipt.strategies:
        if each.missing:
            console.print(f"{each.name}: not measured, {each.missing}", markup=False)
        for error in sorted({error for turn in each.turns for error in turn.errors})[:3]:
            console.print(f"{each.name}: some rows failed: {error}", markup=False)


def _job_rows(receipt: Receipt) -> int:
    return next((each.forecast.rows for each in receipt.strategies if each.forecast is not None), 0)
