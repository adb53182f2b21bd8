"""A whole bench: rows read, the engine started, the strategies measured, the receipt drawn up."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

import gristmill
from gristmill.batches.waiting import start_waits_for, while_told
from gristmill.bench.advice import advise
from gristmill.bench.measure import OnTurn, Schedule, measure
from gristmill.bench.page import bench_page, write_png
from gristmill.bench.receipt import BenchReceipt, Machine
from gristmill.bench.rows import read_rows
from gristmill.bench.strategies import STRATEGIES, Strategy
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.registry import EngineSettings, create_measured_engine
from gristmill.http_values import shown
from gristmill.scoring.backend import MakeView, NoView
from gristmill.scoring.scale import parse_scale
from gristmill.user_error import UserError

#: Rows that are read of a file: enough for any engine's window.
_MOST_ROWS = 4096


class BenchSettings(NamedTuple):
    """``strategies`` by name, empty for all; ``rounds``: how often each has its turn; ``rows``: of one turn, for those
    that send one row at a time; ``labels``: the answers there are, as a scale is written (0..10, or good,bad), empty
    where they are not known; ``job_rows``: how many rows to forecast the time of; ``concurrency``: requests in flight,
    None for what the engine asks for; ``request_timeout`` in seconds."""

    engine: EngineSettings
    strategies: Sequence[str] = ()
    rounds: int = 3
    rows: int = 16
    labels: str = ""
    job_rows: int = 170_000
    concurrency: int | None = None
    request_timeout: float = 600.0
    #: Seconds for which the engine may take to start.
    start_wait: float = 1800.0


class Bench:
    """``run`` once. What is wrong with the settings or the file is raised as UserError before an engine starts."""

    def __init__(self, input_file: Path, settings: BenchSettings) -> None:
        self._input_file = input_file
        self._settings = settings
        self._strategies = _chosen(settings.strategies)
        self._labels = list(parse_scale(settings.labels).labels) if settings.labels else []
        self._rows = read_rows(input_file, _MOST_ROWS, settings.engine.model)
        if len(self._rows) < 2:
            raise UserError(f"{input_file} has one row: a bench needs two at least, and 100 or more to say much.")

    async def run(self, on_turn: OnTurn, make_view: MakeView = NoView) -> BenchReceipt:
        """``on_turn`` is told about every turn that has ended, a view, while the engine starts, what it waits for.
        Raises UserError where the engine cannot start, or takes too long."""
        settings, rows = self._settings, self._rows
        engine = create_measured_engine(settings.engine)
        with make_view() as view:
            await while_told(engine.start(), lambda: start_waits_for(engine), view.waiting, settings.start_wait)
        try:
            dispatcher = Dispatcher(engine, window=settings.concurrency, timeout=settings.request_timeout)
            capabilities = engine.capabilities
            schedule = Schedule(settings.rounds, min(settings.rows, len(rows)), settings.job_rows)
            found = await measure(dispatcher, self._strategies, rows, schedule, self._labels, on_turn)
        finally:
            await engine.stop()
        with self._input_file.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return BenchReceipt(
            measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            gristmill=gristmill.__version__,
            machine=_this_machine(),
            engine=engine.name,
            model=rows[0].model,
            # A password in an address is nobody's business.
            url=",".join(map(shown, settings.engine.url.split(","))) if settings.engine.url else None,
            options=settings.engine.options,
            slots=capabilities.slots,
            context_length=capabilities.context_length,
            rows_file=self._input_file.name,
            rows_sha256=digest,
            rounds=schedule.rounds,
            rows=schedule.rows,
            job_rows=schedule.job_rows,
            labels=self._labels,
            strategies=found,
            advice=advise(found),
        )


class BenchFolder:
    """Where a bench is written: its receipt as JSON, a page, and a plot where matplotlib is installed."""

    def __init__(self, path: Path) -> None:
        """Before anything is measured, as hours may go by until something is written. Raises UserError."""
        self._path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise UserError(f"Nothing can be written to {path}: {error.strerror}.") from None

    def write(self, receipt: BenchReceipt) -> list[str]:
        """The names of the files that were written."""
        encoded = msgspec.json.format(msgspec.json.encode(receipt), indent=1)
        (self._path / "bench.json").write_bytes(encoded + b"\n")
        (self._path / "bench.html").write_text(bench_page(receipt), encoding="utf-8")
        drawn = write_png(receipt, self._path / "bench.png")
        return ["bench.json", "bench.html", *(["bench.png"] if drawn else [])]


def _chosen(names: Sequence[str]) -> list[Strategy]:
    by_name = {each.name: each for each in STRATEGIES}
    for name in names:
        if name not in by_name:
            raise UserError(f"There is no strategy '{name}'. Choose from: {', '.join(by_name)}.")
    return [by_name[name] for name in names or by_name]


def _this_machine() -> Machine:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(cpu, os.cpu_count() or 1, round(memory / 1e9, 1), platform.platform())
