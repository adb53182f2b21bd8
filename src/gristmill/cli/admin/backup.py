"""``gristmill admin backup``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli import config, show
from gristmill.cli.progress_view import DownloadView
from gristmill.printable import printable


def backup(
    destination: Annotated[Path, typer.Argument(metavar="FOLDER|FILE.tar", help="Where the backup goes.")],
    data: config.Data = None,
    database: config.Database = None,
    blobs: config.Blobs = None,
) -> None:
    """Copy the database and all files as of one moment, also while batches run. A folder that holds a backup already is
    brought up to date. Exit code 1: made, but files are damaged."""
    # Imported here, so that the commands that only ask a server start in half the time.
    from gristmill.storage.care.backup import take_backup

    settings = config.storage_settings(data, database, blobs)
    with DownloadView() as view:
        made = asyncio.run(take_backup(settings, destination, lambda _, done, total: view.update(done, total)))
    damaged = made.manifest.damaged
    show.print_text(
        f"{destination}: {made.bytes:,} bytes, of which {made.copied:,} are new; {len(made.manifest.blobs):,} files."
    )
    if damaged:
        show.console.print(
            f"{len(damaged):,} files are gone or cut off, in the server's own folder too, such as "
            f"{printable(damaged[0])}: see 'gristmill admin check'."
        )
        raise typer.Exit(1)
