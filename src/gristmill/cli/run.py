"""``gristmill run``: a batch without a server, resumable by running it again."""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gristmill.batches.lifecycle import is_terminal
from gristmill.cli import config, jsonl, show
from gristmill.cli.progress_view import ProgressView
from gristmill.engines.registry import EngineSettings
from gristmill.printable import printable
from gristmill.telemetry import log
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

if TYPE_CHECKING:
    # Imported where it is used, so that the commands that only ask a server start in half the time.
    from gristmill.batches.host import HostSettings
    from gristmill.batches.job_folder import Ending, JobFolder
    from gristmill.batches.local_run import LocalRun

#: Answer tokens of a row that sets no limit, for choosing a context.
_USUAL_OUTPUT = 1024


def run(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.jsonl", help="Requests, one JSON object a line.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the answers go.")],
    engine: config.EngineName = "openvino",
    model: config.Model = None,
    url: config.Url = None,
    engine_option: config.EngineOptions = None,
    defaults: Annotated[
        Path | None, typer.Option(help="JSON object of body parameters for lines that do not set them.")
    ] = None,
    concurrency: config.Concurrency = None,
    request_timeout: config.RequestTimeout = 600.0,
    reuse_answers: config.ReuseAnswers = False,
    wait: config.Wait = "30m",
    overwrite: Annotated[bool, typer.Option(help="Replace OUTPUT if it exists.")] = False,
    log_level: config.LogLevel = "warning",
) -> None:
    """Answer every request in INPUT.jsonl. Run the same command again to resume. Exit code 1: some rows failed."""
    from gristmill.batches.host import HostSettings
    from gristmill.batches.job_folder import JobFolder
    from gristmill.batches.local_run import Job, LocalRun
    from gristmill.storage.open import StorageSettings

    log.configure(config.check_log_level(log_level))
    jsonl.check_readable(input_file)
    read_defaults = jsonl.read_defaults(defaults)
    settings = config.engine_settings(engine, model, url, engine_option)
    settings = settings._replace(row_tokens=_row_tokens(input_file, read_defaults))
    folder = JobFolder(output)
    identity = _identity(input_file, settings, read_defaults)
    job = Job(input_file, jsonl.first_endpoint(input_file), identity, read_defaults, reuse_answers)
    host_settings = HostSettings(
        StorageSettings(folder.path),
        settings,
        concurrency=concurrency,
        request_timeout=request_timeout,
        answers=config.default_data_folder() / "answers.db",
        start_wait=config.wait_seconds(wait, "--wait"),
    )
    with folder.held():
        ending = folder.ending(identity)
        if ending is None:
            folder.check_output(overwrite)
            ending = _run_and_deliver(LocalRun(folder.path, job), host_settings, folder, output)
            folder.end(ending)
        else:
            show.console.print("This was finished before; nothing is run again.")
        for line in ending.lines:
            show.console.print(line)
    if ending.failed:
        raise typer.Exit(1)


def _run_and_deliver(local: LocalRun, settings: HostSettings, folder: JobFolder, output: Path) -> Ending:
    from gristmill.batches.job_folder import Ending

    local.check()
    ended = local.ended()
    batch, speed = (ended, "") if ended is not None else run_to_end(local, settings)
    if batch.status == "failed":
        folder.discard()
        errors = batch.errors.data if batch.errors else []
        source = printable(local.job.source)
        raise UserError(f"{source} was rejected, nothing ran:\n{show.errors_text(errors)}")
    errors_file = output.with_name(f"{output.stem}.errors{output.suffix}")
    local.deliver(batch.error_file_id, errors_file, even_if_empty=False)
    local.deliver(batch.output_file_id, output, even_if_empty=True)
    said = " ".join(filter(None, (show.summary(batch), speed)))
    files = f"Answers: {output}" + (f"   Errors: {errors_file}" if batch.error_file_id else "")
    return Ending(local.job.identity, [said, files], batch.request_counts.failed)


def run_to_end(local: LocalRun, settings: HostSettings) -> tuple[Batch, str]:
    """Run or resume, showing progress; the ended batch, with what is to say of its speed. A signal ends the command."""
    import uvloop

    with ProgressView() as view, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        # This process is the run's own, so that it may take its signals, and what exists now stays: to walk through it
        # at every full collection would stop the event loop for a tenth of a second.
        gc.freeze()
        batch = runner.run(local.run(settings, view.update, view.waiting, (signal.SIGINT, signal.SIGTERM)))
        speed = view.speed(batch)
    if not is_terminal(batch.status):
        show.console.print(f"Stopped. What is done is kept in {local.state}; the same command goes on from there.")
        raise typer.Exit(130)
    return batch, speed


def _row_tokens(input_file: Path, defaults: dict[str, Any] | None) -> int:
    """Before the engine starts: what it loads its model with cannot change later."""
    from gristmill.batches.longest_row import longest_row_tokens

    shared = len(msgspec.json.encode(defaults)) if defaults else 0
    return longest_row_tokens(input_file, shared, _USUAL_OUTPUT)


def _identity(input_file: Path, engine: EngineSettings, defaults: dict[str, Any] | None) -> dict[str, Any]:
    status = input_file.stat()
    source = [str(input_file.resolve()), status.st_size, status.st_mtime_ns]
    return {"input": source, "engine": engine.engine, "model": engine.model, "defaults": defaults}
