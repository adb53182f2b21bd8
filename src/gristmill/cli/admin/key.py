"""``gristmill admin key``: who may call a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from gristmill.access.caller import Role
from gristmill.cli import config, show
from gristmill.printable import printable
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from gristmill.access.keyring import Keyring
    from gristmill.storage.open import StorageSettings
    from gristmill.storage.records import AccessKey

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True, help="Who may call a server. A key is in force, or gone, at once, while the server runs."
)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name, or its id.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is, or what for.")],
    role: Annotated[Role, typer.Option(help="admin: sees and changes everything; user: its own.")] = Role.USER,
    made_for: Annotated[
        str | None,
        typer.Option("--for", metavar="NAME", help="Whose files and batches a read-only key sees. [nobody's]"),
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows that may be enqueued, in all its unfinished batches.")
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option(metavar="BYTES", help="What its files may take together, such as 20GB.")
    ] = None,
    max_batches: Annotated[int | None, typer.Option(min=1, help="Batches that have not ended.")] = None,
    data: config.Data = None,
    database: config.Database = None,
) -> None:
    """Make a key, and print it: it is shown this once."""
    from gristmill.storage.open import prepare
    from gristmill.storage.scope import KeyLimits

    limits = KeyLimits(max_rows, _bytes(max_bytes), max_batches)
    settings = config.storage_settings(data, database, None)

    async def work() -> str:
        # Before its first start, a server has no database yet.
        await prepare(settings)
        return await _with_keyring(settings, lambda keyring: keyring.add(name, role, limits, made_for))

    key = asyncio.run(work())
    show.print_text(key)
    show.console.print(f"The key of '{name}' ({role}). It is shown this once: give it to whom it is for.")


@app.command("list")
def list_command(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: config.Data = None,
    database: config.Database = None,
) -> None:
    """List the keys with their roles and limits, revoked ones too. What is sent is known to their holders only."""
    settings = config.storage_settings(data, database, None)
    keys = list(asyncio.run(_with_keyring(settings, lambda keyring: keyring.all())))
    if json:
        show.print_json([_told(key) for key in keys])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("Name", "Id", "Role", "Sees", "Rows", "Bytes", "Batches", "Made", "Revoked"):
        table.add_column(heading, overflow="fold")
    names = {key.id: key.name for key in keys}
    for key in keys:
        limits = ["" if most is None else f"{most:,}" for most in (key.max_rows, key.max_bytes, key.max_batches)]
        sees = "" if key.made_for is None else printable(names.get(key.made_for, key.made_for))
        revoked = "" if key.revoked_at is None else show.local_time(key.revoked_at)
        made = show.local_time(key.created_at)
        table.add_row(printable(key.name), key.id, key.role, sees, *limits, made, revoked)
    show.print_table(table)


@app.command()
def revoke(name: _Name, data: config.Data = None, database: config.Database = None) -> None:
    """End a key, with the read-only keys that were made for it. Its files and batches stay, and go on."""
    settings = config.storage_settings(data, database, None)
    key, others = asyncio.run(_with_keyring(settings, lambda keyring: keyring.revoke(name)))
    also = f", and {others} made for it" if others else ""
    show.print_text(f"Revoked: {key.name} ({key.id}){also}.")


async def _with_keyring(settings: StorageSettings, work: Callable[[Keyring], Awaitable[T]]) -> T:
    from gristmill.access.keyring import Keyring
    from gristmill.storage.open import open_metadata_beside

    async with open_metadata_beside(settings) as metadata:
        return await work(Keyring(metadata))


def _told(key: AccessKey) -> dict[str, object]:
    return {field: getattr(key, field) for field in key.__struct_fields__ if field != "secret_hash"}


def _bytes(given: str | None) -> int | None:
    """Raises UserError."""
    if given is None:
        return None
    found = re.fullmatch(r"(\d{1,18}) ?([KMGT]?)B?", given.strip().upper())
    if found is None or not int(found[1]):
        raise UserError(f"'{given}' is no number of bytes: write it as 500MB, 20GB or 20000000000 with --max-bytes.")
    return int(found[1]) * _UNITS[found[2]]
