"""What the commands that score a table share: their options, where they compute, how they are stopped."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.cli import config, show
from gristmill.cli.progress_view import ProgressView
from gristmill.engines.registry import EngineSettings
from gristmill.printable import printable
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

if TYPE_CHECKING:
    # Imported where it is used: tables and templates would slow every other command's start.
    from gristmill.batches.host import HostSettings
    from gristmill.scoring.backend import ScoreBackend

Table = Annotated[str, typer.Argument(help="CSV, TSV, JSONL or Parquet; a folder or a pattern; - for stdin.")]
Rubric = Annotated[Path, typer.Option(help="The rubric, a text file; the same for all rows.")]
IdColumn = Annotated[str, typer.Option("--id", metavar="COLUMN", help="The column that names each row.")]
ScaleText = Annotated[str, typer.Option(help="0..10, or names from worst to best: no,maybe,yes.")]
Row = Annotated[
    str | None, typer.Option(metavar="FILE|TEMPLATE", help="What is sent of a row, in Jinja2; all columns.")
]
Examples = Annotated[str | None, typer.Option(metavar="TABLE", help="Rows with their right scores.")]
MethodName = Annotated[str | None, typer.Option(help="labels or generate; labels where the engine can.")]
ScoreName = Annotated[str, typer.Option(help="The column of the score.")]
MostOffScale = Annotated[
    float, typer.Option(min=0, max=1, help="More probability off the scale than this: generate instead.")
]
Report = Annotated[Path | None, typer.Option(metavar="FILE", help="A page about the scores, as HTML.")]
ShowRows = Annotated[
    int | None, typer.Option("--show", metavar="N", min=1, help="Print the prompts of N rows, and run nothing.")
]
ServerUrl = Annotated[
    str | None, typer.Option(envvar="GRISTMILL_SERVER", help="Score on this server instead of an engine here.")
]
KeepFormulas = Annotated[
    bool, typer.Option("--keep-formulas", help="In CSV and TSV, leave cells that a spreadsheet would compute.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Where the scores go: .csv, .tsv, .jsonl, .parquet; - for stdout."),
]
Confidence = Annotated[float, typer.Option(help="Of intervals that right scores give, from 0.5 to 0.999.")]
Cut = Annotated[
    float | None, typer.Option(help="Rows from this score on are selected: how many are right, and how many missed.")
]
TruthCut = Annotated[
    float | None,
    typer.Option(help="From which right score on a row is one to select; the same as --cut, or 1 of 0, 1."),
]
By = Annotated[str | None, typer.Option(metavar="COLUMN", help="Groups about which the same is told.")]
TruthWanted = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Write N rows whose right scores would help most, to fill in.")
]
PromptPrice = Annotated[float, typer.Option(min=0, help="A hosted API's price of a million prompt tokens.")]
OutputPrice = Annotated[float, typer.Option(min=0, help="... and of a million output tokens.")]
Overwrite = Annotated[bool, typer.Option(help="Replace an OUTPUT that exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")]


#: For what asks about a few rows only.
BEGIN_ANEW = "the same command begins anew"


class PassView(ProgressView):
    """A batch of several: what came of it is said when it has ended."""

    def ended(self, batch: Batch) -> None:
        show.console.print(" ".join(filter(None, (show.summary(batch), self.speed(batch)))))


@contextmanager
def stops(resumable: bool, advice: str = "name a file with -o to be able to resume") -> Iterator[None]:
    """A signal ends the command, with a word on how to go on: ``advice`` where nothing is kept for that."""
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
            show.console.print(f"Stopped. Nothing is kept to go on from: {advice}.")
        raise typer.Exit(130) from None


def host_settings(engine: EngineSettings, concurrency: int | None, request_timeout: float, wait: str) -> HostSettings:
    """Of an engine here. Raises UserError."""
    from gristmill.batches.host import HostSettings
    from gristmill.storage.open import StorageSettings

    return HostSettings(
        StorageSettings(Path()),
        engine,
        concurrency,
        request_timeout,
        answers=config.default_data_folder() / "answers.db",
        start_wait=config.wait_seconds(wait, "--wait"),
    )


def second_host(
    first: HostSettings, settled: Callable[[EngineSettings], EngineSettings], engine: EngineSettings
) -> HostSettings:
    """Of another model. Options of the first engine are for no other."""
    settings = settled(engine)
    if settings.engine == first.engine.engine:
        settings = settings._replace(url=settings.url or first.engine.url, options=first.engine.options)
    return first._replace(engine=settings)


def backend_of(server: str | None, host: HostSettings, reuse_answers: bool) -> ScoreBackend:
    if server is None:
        from gristmill.scoring.local import LocalBackend

        return LocalBackend(host, reuse_answers, PassView, (signal.SIGINT, signal.SIGTERM))
    from gristmill.client import Client
    from gristmill.scoring.remote import RemoteBackend

    return RemoteBackend(Client(server), host.engine.model, reuse_answers, PassView)


def wanted_file(output: Path) -> Path:
    """Where the rows go whose right score is wanted."""
    return output.with_name(f"{output.stem}-truth-wanted.csv")


def wanted_line(rows: int, path: Path, truth: str) -> str:
    if not rows:
        return f"Every row with a score has a right score already: {path} has none to fill in."
    return (
        f"{rows:,} rows to find the right score of: fill in the column {printable(truth)} of {path}, and run gristmill "
        "calibrate with --truths."
    )


def suffix_of(source: str) -> str:
    """Of a table that goes to standard output: as it came, where that can be read as text."""
    suffix = Path(source).suffix.lower().replace("ndjson", "jsonl")
    return suffix if suffix in (".csv", ".tsv", ".jsonl") else ".csv"


def read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"There is no file {path} for the {what}.") from None
    except UnicodeDecodeError:
        raise UserError(f"The {what} {path} is not UTF-8: save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read: {error.strerror}.") from None
