"""Taking a pulled model off this machine: what was pulled goes, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from gristmill.models.cache import cache_folder
from gristmill.models.catalog import CATALOG
from gristmill.models.checked_file import writing_to
from gristmill.models.describe import known_models
from gristmill.models.hub import PARTIAL
from gristmill.models.locate import find_pulled
from gristmill.models.ollama.name import PREFIX as OLLAMA
from gristmill.models.progress import SILENT, Report
from gristmill.models.receipt import Pulled, receipts_in, remove_receipt
from gristmill.user_error import UserError
from gristmill.user_path import is_there, user_path


class Removal(NamedTuple):
    """``files`` are those that go, and ``size`` the bytes that this frees."""

    pulled: Pulled
    files: list[Path]
    size: int


def find_removable(name: str) -> Removal:
    """What removing the pulled model ``name`` means. Raises UserError where there is none."""
    pulled = find_pulled(name)
    if pulled is None:
        raise _not_pulled(name)
    if not _in_cache(pulled.folder):
        raise UserError(f"'{name}' lies outside the cache, in {pulled.folder.resolve()}: delete it there yourself.")
    others = [each for each in receipts_in(pulled.folder) if each.receipt.main != pulled.receipt.main]
    shared = {file.path for other in others for file in other.receipt.files}
    names = [file.path for file in pulled.receipt.files if file.path not in shared]
    if not others and name in CATALOG:
        names += [Path(document.member).name for document in CATALOG[name].documents]
    # A receipt is a file that anybody may have edited: it is not to name what lies elsewhere.
    files = [path for path in (pulled.folder / each for each in names) if _in_cache(path.parent) and _exists(path)]
    return Removal(pulled, files, sum(map(freed, files)))


def remove(removal: Removal, report: Report = SILENT) -> None:
    """Raises UserError where the disk refuses. A kill in the middle leaves a model that counts as not pulled."""
    folder = removal.pulled.folder
    with writing_to(folder, report):
        remove_receipt(removal.pulled)
        for path in removal.files:
            path.unlink(missing_ok=True)
        if not receipts_in(folder):
            shutil.rmtree(folder / PARTIAL, ignore_errors=True)
        for below in sorted({path.parent for path in removal.files} - {folder}, reverse=True):
            if not any(below.iterdir()):
                below.rmdir()
    # The folder stays, with its lock: another process may be waiting for it, to pull the model again.


def freed(path: Path) -> int:
    """The bytes that are free once ``path`` is gone: none where it is a link, or has another name besides."""
    status = path.lstat()
    return 0 if path.is_symlink() or status.st_nlink > 1 else status.st_size


def _in_cache(folder: Path) -> bool:
    return folder.resolve().is_relative_to((cache_folder() / "models").resolve())


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _not_pulled(name: str) -> UserError:
    if name.startswith(OLLAMA):
        return UserError(f"'{name}' is Ollama's: remove it with 'ollama rm {name.removeprefix(OLLAMA)}'.")
    if is_there(user_path(name)):
        return UserError(f"'{name}' is a file or folder of your own: Gristmill removes only what it pulled.")
    names = ", ".join(row.name for row in known_models() if row.pulled and row.source != "ollama")
    return UserError(f"No model '{name}' has been pulled. Pulled models: {names or 'none'}.")
