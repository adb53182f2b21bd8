"""Ollama's folder: where it is, which models it holds, and the files below it, each with the reason why it cannot be
read.

Layout: https://github.com/ollama/ollama/blob/main/manifest/paths.go; places: its FAQ and its installer.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gristmill.models.ollama.name import OllamaName, is_name
from gristmill.user_error import UserError
from gristmill.user_path import user_path

#: The home of the user that Ollama's installer for Linux makes for its service.
_SERVICE = Path("/usr/share/ollama/.ollama/models")
_SHOWN = 8


class StoredManifest(NamedTuple):
    name: OllamaName
    path: Path


def folders() -> list[Path]:
    """Where Ollama's models may be: in OLLAMA_MODELS alone, where that is set."""
    chosen = os.environ.get("OLLAMA_MODELS", "").strip().strip("\"'")
    if chosen:
        return [user_path(chosen)]
    return [Path.home() / ".ollama" / "models", _SERVICE]


def stored_manifests() -> list[StoredManifest]:
    """Of all models that can be read, by name; of two with one name, the first folder's."""
    found: dict[OllamaName, StoredManifest] = {}
    for folder in folders():
        for stored in _manifests_in(folder):
            found.setdefault(stored.name, stored)
    return sorted(found.values(), key=lambda stored: str(stored.name).lower())


def hidden_folders() -> Iterator[UserError]:
    """What keeps this user from seeing which models there are, each as ``find_manifest`` would say it."""
    for folder in folders():
        try:
            next((folder / "manifests").iterdir(), None)
        except PermissionError as error:
            yield unreadable(Path(error.filename), error)
        except OSError:
            pass


def find_manifest(name: OllamaName) -> StoredManifest:
    """Names differ in more than case. Raises UserError where there is none, or none that this user may read."""
    hidden: PermissionError | None = None
    for folder in folders():
        path = folder / "manifests" / name.path
        try:
            if path.is_file():
                return StoredManifest(name, path)
        except PermissionError as error:
            hidden = hidden or error
    known = stored_manifests()
    for stored in known:
        if str(stored.name).lower() == str(name).lower():
            return stored
    if hidden is not None:
        raise unreadable(Path(hidden.filename), hidden)
    raise _unknown(name, known)


def read_blob(path: Path) -> bytes:
    """Raises UserError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> UserError:
    """Where it is a matter of permissions, with what grants them."""
    if not isinstance(error, PermissionError):
        return UserError(f"Ollama's file '{path}' cannot be read ({error.strerror or error}).")
    closed = next((each for each in (*reversed(path.parents), path) if not _open(each)), path)
    try:
        status = closed.stat()
        owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return UserError(f"You may not read Ollama's '{path}': ask its owner for the right to read it.")
    if status.st_mode & stat.S_IRGRP and group != "root":
        advice = f"join its group with 'sudo usermod -aG {group} $USER' and log in again"
    else:
        advice = f"open it to all with 'sudo chmod -R o+rX {closed}'"
    return UserError(f"You may not read '{closed}', where Ollama keeps models (it belongs to user {owner}): {advice}.")


def _open(path: Path) -> bool:
    return os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK, effective_ids=True)


def _manifests_in(folder: Path) -> Iterator[StoredManifest]:
    manifests = folder / "manifests"
    try:
        paths = sorted(manifests.glob("*/*/*/*"))
    except OSError:
        return
    for path in paths:
        name = OllamaName(*path.relative_to(manifests).parts)
        if is_name(name) and path.is_file():
            yield StoredManifest(name, path)


def _unknown(name: OllamaName, known: list[StoredManifest]) -> UserError:
    places = " or ".join(f"'{folder}'" for folder in folders())
    if not known:
        return UserError(
            f"Ollama has no models in {places}: set OLLAMA_MODELS to its folder, or run 'ollama pull {name}' first."
        )
    names = ", ".join(str(stored.name) for stored in known[:_SHOWN])
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return UserError(
        f"Ollama has no model '{name}' in {places}: run 'ollama pull {name}', or name one of {names}{more}."
    )
