"""``gristmill run``: a batch without a server, resumable by running it again."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gristmill.batches.lifecycle import is_terminal
from gristmill.batches.output_lines import errors_beside
from gristmill.cli import config, jsonl, show, stdio, webhook_options
from gristmill.cli.progress_view import ProgressView
from gristmill.cli.targets import check_targets
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
    input_file: Annotated[
        Path, typer.Argument(metavar="INPUT.jsonl", help="Requests, one JSON object a line; - for standard input.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the answers go; - for standard output, failed rows last.")
    ],
    engine: config.EngineName = config.AUTOMATIC,
    model: config.Model = None,
    url: config.Url = None,
    engine_option: config.EngineOptions = None,
    replicas: config.Replicas = None,
    replica_engine: config.ReplicaEngine = None,
    ray_address: config.RayAddress = None,
    alias: config.Aliases = None,
    defaults: Annotated[
        Path | None, typer.Option(help="JSON object of body parameters for lines that do not set them.")
    ] = None,
    concurrency: config.Concurrency = None,
    request_timeout: config.RequestTimeout = 600.0,
    reuse_answers: config.ReuseAnswers = False,
    webhook: webhook_options.RunUrl = None,
    webhook_secret_file: webhook_options.SecretFile = None,
    allow_webhook_host: webhook_options.AllowedHosts = None,
    wait: config.Wait = "30m",
    overwrite: Annotated[bool, typer.Option(help="Replace OUTPUT if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
    log_level: config.LogLevel = "warning",
) -> None:
    """Answer every request in INPUT.jsonl. Run the same command again to resume. Exit code 1: some rows failed."""
    from gristmill.batches.host import HostSettings
    from gristmill.batches.job_folder import JobFolder
    from gristmill.batches.local_run import Job, LocalRun
    from gristmill.storage.open import StorageSettings

    log.configure(config.check_log_level(log_level))
    stdio.check_json(as_json, output)
    if not stdio.is_dash(input_file):
        jsonl.check_readable(input_file)
    read_defaults = jsonl.read_defaults(defaults)
    given = config.engine_settings(engine, model, url, engine_option)
    given = config.pool_settings(given, replicas, replica_engine, ray_address)
    with stdio.resting_place(output) as target:
        check_targets({"output": target, "file of failed rows": errors_beside(target)}, [input_file, defaults])
        engine_settings = config.settled(given)
        folder = JobFolder(target)
        host_settings = HostSettings(
            StorageSettings(folder.path),
            engine_settings,
            concurrency=concurrency,
            request_timeout=request_timeout,
            answers=config.default_data_folder() / "answers.db",
            aliases=config.alias_settings(alias),
            start_wait=config.wait_seconds(wait, "--wait"),
            webhooks=webhook_options.settings(webhook, webhook_secret_file, allow_webhook_host),
        )
        with folder.held():
            source, named = _source(input_file, folder)
            identity = _identity(named, engine_settings, read_defaults)
            if alias:
                identity["alias"] = sorted(alias)
            ending = folder.ending(identity)
            if ending is None:
                folder.check_output(overwrite, errors_beside(target))
                job = Job(source, jsonl.first_endpoint(source), identity, read_defaults, reuse_answers)
                row_tokens = _row_tokens(source, read_defaults)
                host_settings = host_settings._replace(engine=engine_settings._replace(row_tokens=row_tokens))
                ending = _run_and_deliver(LocalRun(folder.path, job), host_settings, folder, target, output)
                folder.end(ending)
            else:
                show.console.print("This was finished before; nothing is run again.")
            if stdio.is_dash(output):
                stdio.write_files(target, errors_beside(target))
            for line in ending.lines:
                show.console.print(line)
            if as_json:
                show.print_json(ending.report)
    if ending.failed:
        raise typer.Exit(1)


def _source(input_file: Path, folder: JobFolder) -> tuple[Path, list[str | int]]:
    """The file to read, and what tells it from another."""
    if stdio.is_dash(input_file):
        going_on = folder.begun() and sys.stdin.isatty()
        if going_on:
            show.console.print("Going on with the input that was kept.")
        kept, digest = folder.keep_input(None if going_on else stdio.standard_input())
        return kept, ["standard input", digest]
    status = input_file.stat()
    return input_file, [str(input_file.resolve()), status.st_size, status.st_mtime_ns]


def _run_and_deliver(local: LocalRun, settings: HostSettings, folder: JobFolder, target: Path, output: Path) -> Ending:
    from gristmill.batches.job_folder import Ending

    local.check()
    ended = local.ended()
    piped = stdio.is_dash(output)
    batch, speed = (ended, "") if ended is not None else run_to_end(local, settings, resumable=not piped)
    if batch.status == "failed":
        source = "Standard input" if local.job.source.parent == folder.path else printable(local.job.source)
        folder.discard()
        errors = batch.errors.data if batch.errors else []
        raise UserError(f"{source} was rejected, nothing ran:\n{show.errors_text(errors)}")
    local.deliver(batch.error_file_id, errors_beside(target), even_if_empty=False)
    local.deliver(batch.output_file_id, target, even_if_empty=True)
    lines = [" ".join(filter(None, (show.summary(batch), speed)))]
    if local.told is not None:
        lines.append(show.told(local.told))
    errors_path = str(errors_beside(output)) if batch.error_file_id else None
    if not piped:
        lines.append(f"Answers: {output}" + (f"   Errors: {errors_path}" if errors_path else ""))
    report = {
        "status": batch.status,
        "request_counts": msgspec.to_builtins(batch.request_counts),
        "usage": msgspec.to_builtins(batch.usage),
        "output": str(output),
        "errors": errors_path,
    }
    return Ending(local.job.identity, lines, batch.request_counts.failed, report)


def run_to_end(local: LocalRun, settings: HostSettings, resumable: bool) -> tuple[Batch, str]:
    """Run or resume, showing progress; the ended batch, with what is to say of its speed. A signal ends the command."""
    import uvloop

    with ProgressView() as view, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        # This process is the run's own, so that it may take its signals, and what exists now stays: to walk through it
        # at every full collection would stop the event loop for a tenth of a second.
        gc.freeze()
        batch = runner.run(local.run(settings, view.update, view.waiting, (signal.SIGINT, signal.SIGTERM)))
        speed = view.speed(batch)
    if not is_terminal(batch.status):
        if resumable:
            show.console.print(f"Stopped. What is done is kept in {local.state}; the same command goes on from there.")
        else:
            show.console.print(
                "Stopped. With -o - nothing is kept to go on from, and nothing was written: name a file with -o to be "
                "able to resume."
            )
        raise typer.Exit(130)
    return batch, speed


def _row_tokens(input_file: Path, defaults: dict[str, Any] | None) -> int:
    """Before the engine starts: what it loads its model with cannot change later."""
    from gristmill.batches.longest_row import longest_row_tokens

    shared = len(msgspec.json.encode(defaults)) if defaults else 0
    return longest_row_tokens(input_file, shared, _USUAL_OUTPUT)


def _identity(source: list[str | int], engine: EngineSettings, defaults: dict[str, Any] | None) -> dict[str, Any]:
    # A pool answers as the engine in its replicas does.
    answers = engine.options.get("replica_engine", engine.engine)
    return {"input": source, "engine": answers, "model": engine.model, "defaults": defaults}
