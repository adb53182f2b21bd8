"""``gristmill batches``: batches on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.batches.lifecycle import is_terminal
from gristmill.batches.output_lines import errors_beside
from gristmill.cli import config, jsonl, show, stdio, webhook_options
from gristmill.cli.progress_view import DownloadView, ProgressView
from gristmill.cli.targets import check_targets
from gristmill.client import Client
from gristmill.printable import printable
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

app = typer.Typer(help="Submit batches to a server and follow them.", no_args_is_help=True)

Server = Annotated[str, typer.Option("--server", envvar="GRISTMILL_SERVER", help="The server's base URL.")]
BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_SERVER = "http://127.0.0.1:4080/v1"


@app.command()
def submit(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.jsonl", help="Requests; - for standard input.")],
    server: Server = DEFAULT_SERVER,
    window: Annotated[str, typer.Option(help="How long it may take, such as 24h or 30d.")] = "30d",
    endpoint: Annotated[str | None, typer.Option(help="Endpoint of the requests; else the first line's url.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE to keep with the batch.")] = None,
    defaults: Annotated[
        Path | None, typer.Option(help="JSON object of body parameters for lines that do not set them.")
    ] = None,
    reuse_answers: config.ReuseAnswers = False,
    webhook: webhook_options.BatchUrl = None,
    webhook_secret_file: webhook_options.SecretFile = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a JSONL file and create a batch from it."""
    pairs = _pairs(metadata or [])
    read_defaults = jsonl.read_defaults(defaults)
    to_tell = webhook_options.of_batch(webhook, webhook_secret_file)
    client = Client(server)
    with stdio.readable(input_file) as source:
        path = endpoint or jsonl.first_endpoint(source)
        batch = client.submit(
            source,
            path,
            window,
            metadata=pairs,
            defaults=read_defaults,
            reuse_answers=reuse_answers,
            webhook=to_tell.request,
        )
    to_tell.show_new_secret()
    if watch:
        batch = _watch(client, batch, quiet=as_json)
    if as_json:
        show.print_json(batch)
    elif not watch:
        show.print_text(printable(batch.id))
    _exit(batch if watch else None)


@app.command(name="list")
def show_list(
    server: Server = DEFAULT_SERVER,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many to list, newest first.")] = 20,
    after: Annotated[str | None, typer.Option(help="List only batches created before this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    page = Client(server).page(limit, after)
    if as_json:
        show.print_json(page)
    elif page.data:
        show.print_table(show.batch_table(page.data))
    else:
        show.console.print("There are no batches yet: create one with 'gristmill batches submit'.")


@app.command(name="show")
def show_batch(batch_id: BatchId, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Show one batch."""
    batch = Client(server).get(batch_id)
    if as_json:
        show.print_json(batch)
        return
    show.print_table(show.batch_table([batch]))
    if batch.errors:
        show.print_text(show.errors_text(batch.errors.data))
    if text := show.rates(batch):
        show.print_text(text)


@app.command()
def watch(batch_id: BatchId, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Follow a batch until it ends. Exit code 1: rows failed or were not run."""
    client = Client(server)
    batch = _watch(client, client.get(batch_id), quiet=as_json)
    if as_json:
        show.print_json(batch)
    _exit(batch)


@app.command("cancel")
def cancel_batch(batch_id: BatchId, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Cancel a batch. What has been answered is kept."""
    batch = Client(server).cancel(batch_id)
    if as_json:
        show.print_json(batch)
    else:
        show.print_text(f"{printable(batch.id)} is {printable(batch.status)}.")


@app.command("download")
def download_batch(
    batch_id: BatchId,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the answers go; - for standard output, failed rows last.")
    ],
    server: Server = DEFAULT_SERVER,
) -> None:
    """Download the answers, and failed rows to OUTPUT.errors.jsonl. Resumes where an earlier try stopped."""
    client = Client(server)
    if not stdio.is_dash(output):
        check_targets({"output": output, "file of failed rows": errors_beside(output)}, [])
    batch = client.get(batch_id)
    if not is_terminal(batch.status):
        raise UserError(
            f"The batch is {printable(batch.status)}: its files come when it ends "
            f"(gristmill batches watch {printable(batch.id)})."
        )
    if stdio.is_dash(output):
        stdio.write_downloads(client, [file for file in (batch.output_file_id, batch.error_file_id) if file])
    else:
        with DownloadView() as view:
            written = client.save(batch, output, view.update)
        for path in written:
            show.print_text(str(path))
    if batch.output_file_id is None:
        show.console.print("No row was answered, so there is no output file.")


def _watch(client: Client, batch: Batch, quiet: bool) -> Batch:
    """Progress goes to standard error. ``quiet``: the end does not, as it comes in another form."""
    try:
        with ProgressView() as view:
            batch = client.wait(batch, view.update, view.no_answer)
    except KeyboardInterrupt:
        batch_id = printable(batch.id)
        show.console.print(f"No longer watching; the batch goes on. To watch again: gristmill batches watch {batch_id}")
        raise typer.Exit(130) from None
    if not quiet:
        show.console.print(" ".join(filter(None, (show.summary(batch), view.speed(batch)))))
        if batch.errors:
            show.console.print(show.errors_text(batch.errors.data))
    return batch


def _exit(batch: Batch | None) -> None:
    if batch is not None and (batch.status != "completed" or batch.request_counts.failed):
        raise typer.Exit(1)


def _pairs(pairs: list[str]) -> dict[str, str]:
    metadata = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"The metadata '{pair}' is not KEY=VALUE.")
        metadata[key] = value
    return metadata
