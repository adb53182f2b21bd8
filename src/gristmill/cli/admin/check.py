"""``gristmill admin check``."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer

from gristmill.cli import config, show
from gristmill.cli.batches import AsJson


def check(
    repair: Annotated[bool, typer.Option("--repair", help="Remove bytes that belong to nothing since a day.")] = False,
    data: config.Data = None,
    database: config.Database = None,
    blobs: config.Blobs = None,
    as_json: AsJson = False,
) -> None:
    """Check a server's data, while it runs or not: whole, in agreement with itself, without bytes that belong to
    nothing. Exit code 1: there is a problem."""
    from gristmill.storage.care.check import check as check_data

    found = asyncio.run(check_data(config.storage_settings(data, database, blobs), repair, time.time()))
    if as_json:
        show.print_json(found)
    else:
        for each in found:
            show.print_finding(each)
    if any(each.verdict == "problem" for each in found):
        raise typer.Exit(1)
