"""``gristmill admin audit``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from gristmill.cli import config, show
from gristmill.printable import printable
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from gristmill.storage.open import StorageSettings
    from gristmill.storage.records import AccessKey, AuditEntry


def audit(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, from the newest on.")] = 50,
    key: Annotated[str | None, typer.Option(metavar="NAME", help="Of one key only, by its name or id.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: config.Data = None,
    database: config.Database = None,
) -> None:
    """Who changed what: logins, keys, and every request that made, changed or deleted something. Newest first."""
    entries, keys = asyncio.run(_read(config.storage_settings(data, database, None), limit, key))
    if json:
        show.print_json(entries)
        return
    names = {each.id: each.name for each in keys}
    table = Table(box=None, pad_edge=False)
    for heading in ("When", "Key", "From", "What", "Which", "Answer"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        who = "" if entry.key_id is None else names.get(entry.key_id, entry.key_id)
        which = names.get(entry.target or "", entry.target or "")
        told = (printable(each) for each in (who, entry.address or "", entry.action, which))
        table.add_row(show.local_time(entry.at), *told, "" if entry.status is None else str(entry.status))
    show.print_table(table)


async def _read(settings: StorageSettings, limit: int, key: str | None) -> tuple[list[AuditEntry], list[AccessKey]]:
    from gristmill.storage.open import open_metadata_beside

    async with open_metadata_beside(settings) as metadata:
        keys = await metadata.access_keys.all()
        # Of several that had the name, the newest.
        key_id = next((each.id for each in reversed(keys) if key in (each.id, each.name)), None)
        if key is not None and key_id is None:
            raise UserError(f"There is and was no key '{key}': 'gristmill admin key list' shows them.")
        return await metadata.audit_log.newest(limit, key_id), keys
