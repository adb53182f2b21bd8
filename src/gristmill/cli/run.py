"""``gristmill run``: a batch without a server, resumable by running it again."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gristmill.cli import config, jsonl, show
from gristmill.engines.registry import EngineSettings
from gristmill.storage.records import FileRecord, file_blob
from gristmill.telemetry import log
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch, CreateBatchRequest

if TYPE_CHECKING:
    # Imported where it is used, so that the commands that only ask a server start in half the time.
    from gristmill.batches.host import BatchHost, HostSettings

#: A run has no deadline; this is the longest window there is.
_WINDOW = "366d"
_INPUT_ID = "file-input"
_NOTE = "job.json"
#: Answer tokens of a row that sets no limit, for choosing a context.
_USUAL_OUTPUT = 1024


class _Job(msgspec.Struct):
    """What a run was started with; running it again with something else is not resuming it."""

    input: str
    input_bytes: int
    input_modified_ns: int
    engine: str
    model: str | None
    defaults: dict[str, Any] | None


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
    overwrite: Annotated[bool, typer.Option(help="Replace an OUTPUT that exists.")] = False,
    log_level: config.LogLevel = "warning",
) -> None:
    """Answer every request in INPUT.jsonl; run again to resume. Exit code 1: some rows failed."""
    import uvloop

    from gristmill.batches.host import HostSettings
    from gristmill.storage.open import StorageSettings

    log.configure(config.check_log_level(log_level))
    jsonl.check_readable(input_file)
    settings = config.engine_settings(engine, model, url, engine_option)
    state = output.parent / f".{output.name}.gristmill"
    _check_output(output, state, overwrite)
    read_defaults = jsonl.read_defaults(defaults)
    settings = settings._replace(row_tokens=_row_tokens(input_file, read_defaults))
    job = _job(input_file, settings, read_defaults)
    _check_same_job(state, job)
    host_settings = HostSettings(
        StorageSettings(state),
        settings,
        concurrency=concurrency,
        request_timeout=request_timeout,
        answers=config.default_data_folder() / "answers.db",
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        batch, speed = runner.run(_run(host_settings, input_file, job, reuse_answers))
    if not show.is_terminal(batch):
        show.console.print(f"Stopped. What is done is kept in {state}; the same command goes on from there.")
        raise typer.Exit(130)
    if batch.status == "failed":
        _discard(state)
        errors = batch.errors.data if batch.errors else []
        raise UserError(f"{input_file} was rejected, nothing ran:\n{show.errors_text(errors)}")
    errors_file = output.with_name(f"{output.stem}.errors{output.suffix}")
    _deliver(batch.error_file_id, state, errors_file, even_if_empty=False)
    _deliver(batch.output_file_id, state, output, even_if_empty=True)
    _discard(state)
    show.console.print(" ".join(filter(None, (show.summary(batch), speed))))
    show.console.print(f"Answers: {output}" + (f"   Errors: {errors_file}" if batch.error_file_id else ""))
    if batch.request_counts.failed:
        raise typer.Exit(1)


async def _run(settings: HostSettings, input_file: Path, job: _Job, reuse_answers: bool) -> tuple[Batch, str]:
    """Run or resume until the batch has ended or a signal stops it; with what is to say of its speed."""
    from gristmill.batches.host import BatchHost

    host = BatchHost(settings)
    stopped = asyncio.Event()
    # Until the engine has started, Ctrl-C simply ends the command: a model may take minutes to load.
    await host.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        batch = await _find_or_create(host, input_file, job, reuse_answers)
        with show.ProgressView() as view:
            while not show.is_terminal(batch) and not stopped.is_set():
                view.update(batch)
                await _pause(stopped, 0.2)
                batch = await host.batches.get(batch.id)
            speed = view.speed(batch)
    finally:
        await host.stop()
    return batch, speed


async def _find_or_create(host: BatchHost, input_file: Path, job: _Job, reuse_answers: bool) -> Batch:
    page = await host.batches.page(None, 1)
    if page.data:
        return page.data[0]
    # Only now: an engine that could not start has begun nothing.
    note = host.settings.storage.data / _NOTE
    new_note = note.with_suffix(".new")
    new_note.write_bytes(msgspec.json.encode(job))
    new_note.replace(note)
    now = int(time.time())
    _link(_blob(host.settings.storage.data, _INPUT_ID), input_file)
    if await host.storage.metadata.files.get(_INPUT_ID) is None:
        await host.storage.metadata.files.add(FileRecord(_INPUT_ID, job.input_bytes, now, input_file.name, "batch"))
    endpoint = jsonl.first_endpoint(input_file)
    request = CreateBatchRequest(_INPUT_ID, endpoint, _WINDOW, defaults=job.defaults, reuse_answers=reuse_answers)
    return await host.batches.create(request)


async def _pause(stopped: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopped.wait()
    except TimeoutError:
        pass


def _check_output(output: Path, state: Path, overwrite: bool) -> None:
    if not output.parent.is_dir():
        raise UserError(f"There is no folder {output.parent} for the output: create it first.")
    if output.exists() and not (state / _NOTE).exists() and not overwrite:
        raise UserError(f"{output} exists already: choose another name, or replace it with --overwrite.")


def _row_tokens(input_file: Path, defaults: dict[str, Any] | None) -> int:
    """Before the engine starts: what it loads its model with cannot change later."""
    from gristmill.batches.longest_row import longest_row_tokens

    shared = len(msgspec.json.encode(defaults)) if defaults else 0
    return longest_row_tokens(input_file, shared, _USUAL_OUTPUT)


def _job(input_file: Path, engine: EngineSettings, defaults: dict[str, Any] | None) -> _Job:
    status = input_file.stat()
    return _Job(str(input_file.resolve()), status.st_size, status.st_mtime_ns, engine.engine, engine.model, defaults)


def _check_same_job(state: Path, job: _Job) -> None:
    """Raises UserError where ``state`` belongs to something else."""
    note = state / _NOTE
    if not note.exists():
        return
    before = msgspec.json.decode(note.read_bytes(), type=_Job)
    changed = [name for name in job.__struct_fields__ if getattr(job, name) != getattr(before, name)]
    if changed:
        what = "input" if any(name.startswith("input") for name in changed) else " and ".join(changed)
        raise UserError(
            f"The {what} changed since this run was started: undo that to resume it, or delete {state} to start afresh."
        )


def _deliver(file_id: str | None, state: Path, target: Path, even_if_empty: bool) -> None:
    """Move a result file into place; again and again, if need be, after a kill."""
    if file_id is not None:
        source = _blob(state, file_id)
        if source.exists():
            source.replace(target)
    elif even_if_empty:
        target.write_bytes(b"")
    else:
        target.unlink(missing_ok=True)


def _discard(state: Path) -> None:
    """In one step: half a state, left behind by a kill, would look like a run to resume."""
    done = state.with_name(state.name + ".done")
    shutil.rmtree(done, ignore_errors=True)
    state.replace(done)
    shutil.rmtree(done)


def _blob(state: Path, file_id: str) -> Path:
    return state / "blobs" / file_blob(file_id)


def _link(blob: Path, input_file: Path) -> None:
    """The input is read where it is, not copied."""
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.unlink(missing_ok=True)
    blob.symlink_to(input_file.resolve())
