"""``gristmill files``: files on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli import show, stdio
from gristmill.cli.batches import DEFAULT_SERVER, AsJson, Server
from gristmill.cli.progress_view import DownloadView
from gristmill.cli.targets import check_targets
from gristmill.client import Client
from gristmill.printable import printable

app = typer.Typer(help="The files on a server: inputs of batches, and their answers.", no_args_is_help=True)

FileId = Annotated[str, typer.Argument(metavar="FILE_ID")]


@app.command(name="list")
def show_list(
    server: Server = DEFAULT_SERVER,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to list, newest first.")] = 20,
    after: Annotated[str | None, typer.Option(help="List only files created before this one.")] = None,
    purpose: Annotated[str | None, typer.Option(help="List only files of this purpose: batch, batch_output.")] = None,
    as_json: AsJson = False,
) -> None:
    """List files, newest first."""
    page = Client(server).files(limit, after, purpose)
    if as_json:
        show.print_json(page)
    elif page.data:
        show.print_table(show.file_table(page.data))
        if page.has_more:
            last = printable(page.data[-1].id)
            show.console.print(f"There are more: see them with --limit, or with --after {last}.")
    else:
        show.console.print("There are no such files." if purpose or after else "There are no files yet.")


@app.command(name="get")
def get_file(
    file_id: FileId,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Where to write it; - for standard output.")
    ] = stdio.DASH,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Download a file. Into a file, it resumes where an earlier try stopped."""
    client = Client(server)
    if output == stdio.DASH:
        stdio.write_downloads(client, [file_id])
        return
    check_targets({"file": Path(output)}, [])
    with DownloadView() as view:
        client.download(file_id, Path(output), view.update)
    show.print_text(output)


@app.command(name="rm")
def remove_files(
    file_ids: Annotated[list[str], typer.Argument(metavar="FILE_ID...")], server: Server = DEFAULT_SERVER
) -> None:
    """Delete files from the server. Batches that have been made from them go on."""
    client = Client(server)
    for file_id in file_ids:
        client.delete_file(file_id)
        show.print_text(f"Deleted {printable(file_id)}.")
