"""``gristmill admin prune``."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer

from gristmill.batches.lifecycle import window_seconds
from gristmill.cli import config, show
from gristmill.counted import counted
from gristmill.user_error import UserError


def prune(
    ended_before: Annotated[str, typer.Option(help="How long ago they ended: minutes, hours or days, such as 30d.")],
    files: Annotated[bool, typer.Option("--files", help="Delete their inputs and results, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    data: config.Data = None,
    database: config.Database = None,
    blobs: config.Blobs = None,
) -> None:
    """Forget batches that ended long ago, and give space back to the disk, also while the server runs."""
    from gristmill.storage.care.prune import prune as prune_data

    age = window_seconds(ended_before)
    if age is None:
        raise UserError(f"--ended-before takes minutes, hours or days up to '366d', such as 30d, not '{ended_before}'.")
    settings = config.storage_settings(data, database, blobs)
    found, given, kept_back = asyncio.run(prune_data(settings, int(time.time()) - age, files, dry_run))
    forgotten = counted(found.batches, "batch", "batches") + (
        f", and {found.files:,} of their files with {found.file_bytes:,} bytes" if files else ""
    )
    if dry_run:
        show.print_text(f"Would be forgotten: {forgotten}.")
        show.print_text(f"Free inside the database already: {given:,} bytes.")
        return
    show.print_text(f"Forgotten: {forgotten}.")
    show.print_text(f"The database is {given:,} bytes smaller.")
    if kept_back:
        show.console.print(
            f"{kept_back:,} bytes stay free inside it: an earlier version has made it. Stop the server and run this "
            "once more, and from then on it gives space back by itself."
        )
