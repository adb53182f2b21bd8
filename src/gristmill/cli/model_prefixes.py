"""``gristmill models prefixes``: what embedded engines keep on disk of the prompts that rows share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from gristmill.cli import show
from gristmill.engines.embedded.prefix_files.kept_prefixes import KeptPrefix, kept_prefixes, made_from, remove_prefixes
from gristmill.engines.embedded.prefix_files.prefix_folder import prefixes_folder
from gristmill.models.progress import human_size
from gristmill.models.receipt import Pulled
from gristmill.printable import printable
from gristmill.user_error import UserError


def prefixes(
    model: str | None = typer.Option(None, "--model", help="Only those of this model, as requests call it."),
    clear: bool = typer.Option(False, "--clear", help="Remove them; also while an engine runs."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
    json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List the prefixes that are kept on disk, the one used last first, or remove them."""
    folder = prefixes_folder()
    found = [each for each in _kept(folder) if model is None or each.model == model]
    if clear:
        _clear(folder, found, yes)
    elif json:
        show.print_json([_facts(each) for each in found])
    elif found:
        _show(found)
    else:
        show.console.print(f"No prefixes are kept in {folder}.")


def of_pulled(pulled: Pulled) -> list[KeptPrefix]:
    """Those of a pulled model, also where somebody else's copy of the same file made them."""
    weights = max(pulled.receipt.files, key=lambda file: file.size, default=None)
    return made_from(_kept(prefixes_folder()), weights.sha256) if weights is not None else []


def remove(found: list[KeptPrefix]) -> None:
    """Raises UserError."""
    folder = prefixes_folder()
    try:
        remove_prefixes(folder, found)
    except OSError as error:
        raise UserError(f"The prefixes in {folder} cannot be removed: {error.strerror}.") from None


def _kept(folder: Path) -> list[KeptPrefix]:
    try:
        return kept_prefixes(folder)
    except OSError as error:
        raise UserError(f"The prefixes in {folder} cannot be looked at: {error.strerror}.") from None


def _clear(folder: Path, found: list[KeptPrefix], yes: bool) -> None:
    question = f"Remove {_count(found)} from {folder} and free {_size(found)}?"
    if found and not yes:
        if not sys.stdin.isatty():
            raise UserError(f"{question} Say so with --yes: there is no terminal to ask on.")
        if not typer.confirm(question, err=True):
            show.console.print("Nothing was removed.")
            raise typer.Exit(1)
    remove(found)
    show.print_text(f"Removed {_count(found)}: {_size(found)} freed.")


def _count(found: list[KeptPrefix]) -> str:
    return "1 prefix" if len(found) == 1 else f"{len(found):,} prefixes"


def _size(found: list[KeptPrefix]) -> str:
    return human_size(sum(each.size for each in found))


def _show(found: list[KeptPrefix]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("Model", "Engine", "Tokens", "Size", "Last used"):
        table.add_column(heading, justify="right" if heading in ("Tokens", "Size") else "left", overflow="fold")
    for each in found:
        engine, _, _ = each.made_by.partition(" ")
        cells = (
            printable(each.model) or "(damaged)",
            printable(engine),
            f"{each.tokens:,}",
            human_size(each.size),
            show.local_time(each.used),
        )
        table.add_row(*cells)
    show.print_table(table)
    show.console.print(f"{_count(found)}, {_size(found)}")


def _facts(each: KeptPrefix) -> dict[str, Any]:
    return {
        "path": str(each.path),
        "model": each.model or None,
        "made_by": each.made_by or None,
        "tokens": each.tokens,
        "size": each.size,
        "used": each.used,
    }
