"""``gristmill admin restore``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli import config, show
from gristmill.cli.progress_view import DownloadView


def restore(
    source: Annotated[Path, typer.Argument(metavar="FOLDER|FILE.tar", help="A backup.")],
    data: config.Data = None,
    database: config.Database = None,
    blobs: config.Blobs = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in the data folder.")] = False,
) -> None:
    """Put a backup into an empty data folder that no server uses. Every byte is checked before anything is put in
    place; batches that had not ended then go on when the server starts."""
    from gristmill.storage.care.restore import restore as restore_backup

    settings = config.storage_settings(data, database, blobs)
    with DownloadView() as view:
        manifest = asyncio.run(restore_backup(settings, source, force, view.update))
    made = show.local_time(manifest.made_at)
    show.print_text(f"Restored {settings.data} as of {made}: {len(manifest.blobs):,} files. Start the server to go on.")
