"""``gristmill admin disk``."""

from __future__ import annotations

import asyncio

from gristmill.cli import config, show
from gristmill.cli.batches import AsJson
from gristmill.printable import printable


def disk(
    data: config.Data = None, database: config.Database = None, blobs: config.Blobs = None, as_json: AsJson = False
) -> None:
    """What a server's data takes of the disk, part by part, what is free, and what unfinished batches still need."""
    from gristmill.batches.room import need_of_unfinished
    from gristmill.storage.care.disk_use import DiskUse, disk_use
    from gristmill.storage.open import open_beside, places

    settings = config.storage_settings(data, database, blobs)

    async def look() -> tuple[DiskUse, int]:
        async with open_beside(settings) as storage:
            return await disk_use(storage, places(settings)), await need_of_unfinished(storage)

    use, need = asyncio.run(look())
    if as_json:
        show.print_json({"use": use, "unfinished_batches_need_at_least": need})
        return
    where = ", in the object store" if use.elsewhere else ""
    lines = [
        ("database", use.database),
        ("  of which free inside", use.database_free),
        ("write-ahead log", use.write_ahead_log),
        ("kept answers", use.answers),
        ("scratch", use.scratch),
        ("scorings", use.scorings),
        *((f"files: {printable(purpose)}{where}", size) for purpose, size in sorted(use.files.items())),
        (f"belongs to nothing{where}", use.orphans),
        ("free on the disk", use.free),
        ("unfinished batches need at least", need),
    ]
    for name, size in lines:
        show.print_text(f"{size:>20,}  {name}")
    if need > use.free:
        show.console.print("The disk is too small for what runs: free some space, or batches will have to wait.")
