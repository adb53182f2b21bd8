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
Priority = Annotated[
    int, typer.Option(min=-5, max=5, help="Its share of the engine among other batches: each step is twice as much.")
]
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
    priority: Priority = 0,
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
            priority=priority,
            webhook=to_tell.request,
        )
    to_tell.show_new_secret()
    _follow(client, batch, watch, as_json)


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
    if text := show.warning(batch):
        show.print_text(text)
    for text in show.relations(batch):
        show.print_text(text)


@app.command()
def watch(batch_id: BatchId, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Follow a batch until it ends. Exit code 1: rows failed or were not run."""
    client = Client(server)
    _follow(client, client.get(batch_id), watch=True, as_json=as_json)


@app.command("cancel")
def cancel_batch(batch_id: BatchId, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Cancel a batch. What has been answered is kept."""
    batch = Client(server).cancel(batch_id)
    _tell(batch, f"{printable(batch.id)} is {printable(batch.status)}.", as_json)


@app.command("pause")
def pause_batch(batch_id: BatchId, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Pause a batch: nothing more is asked until it is resumed. Its window goes on."""
    batch = Client(server).pause(batch_id)
    until = f" It still expires at {show.local_time(batch.expires_at)}." if batch.expires_at else ""
    name = printable(batch.id)
    _tell(batch, f"{name} is paused.{until} To go on: gristmill batches resume {name}", as_json)


@app.command("resume")
def resume_batch(batch_id: BatchId, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Go on with a paused batch."""
    batch = Client(server).resume(batch_id)
    _tell(batch, f"{printable(batch.id)} goes on.", as_json)


# A number below 0 is no option.
@app.command("priority", context_settings={"ignore_unknown_options": True})
def set_priority(
    batch_id: BatchId,
    priority: Annotated[int, typer.Argument(metavar="PRIORITY", min=-5, max=5, help="From -5 to 5.")],
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Give a batch that waits or runs another priority; each step is twice the share of the engine."""
    batch = Client(server).set_priority(batch_id, priority)
    _tell(batch, f"{printable(batch.id)} has the priority {priority}.", as_json)


@app.command("retry")
def retry_batch(
    batch_id: BatchId,
    server: Server = DEFAULT_SERVER,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the new batch until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the rows of an ended batch that failed or never ran again, in a new batch; prints its id."""
    client = Client(server)
    _follow(client, client.retry(batch_id), watch, as_json)


@app.command("download")
def download_batch(
    batch_id: BatchId,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the answers go; - for standard output, failed rows last.")
    ],
    server: Server = DEFAULT_SERVER,
) -> None:
    """Download the answers, and failed rows to OUTPUT.errors.jsonl: those so far, where the batch has not ended (exit
    code 1), and with those of its retries."""
    client = Client(server)
    if not stdio.is_dash(output):
        check_targets({"output": output, "file of failed rows": errors_beside(output)}, [])
    batch = client.get(batch_id)
    # Asked before the answers: there may be more of these by then, never fewer.
    chain = client.chain(batch)
    if stdio.is_dash(output):
        stdio.write_results(client, batch)
    else:
        with DownloadView() as view:
            written = client.save(batch, output, view.update)
        for path in written:
            show.print_text(str(path))
    told = show.downloaded(chain)
    if told:
        show.console.print(told)
    if not is_terminal(chain[-1].status):
        raise typer.Exit(1)


def _tell(batch: Batch, text: str, as_json: bool) -> None:
    if as_json:
        show.print_json(batch)
    else:
        show.print_text(text)


def _follow(client: Client, batch: Batch, watch: bool, as_json: bool) -> None:
    """Print which batch it is or, with ``watch``, what came of it once it has ended."""
    if watch:
        batch = _watch(client, batch, quiet=as_json)
    if as_json:
        show.print_json(batch)
    elif not watch:
        show.print_text(printable(batch.id))
    if watch and (batch.status != "completed" or batch.request_counts.failed):
        raise typer.Exit(1)


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


def _pairs(pairs: list[str]) -> dict[str, str]:
    metadata = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"The metadata '{pair}' is not KEY=VALUE.")
        metadata[key] = value
    return metadata
