"""The files that a command is about to write, checked before it begins: what fails in the end was work for nothing."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from gristmill.user_error import UserError


def check_targets(written: Mapping[str, Path | None], read: Iterable[Path | None]) -> None:
    """``written`` by what each is, in words. Raises UserError where one cannot be a file, or would take the place of
    another or of one that is ``read``."""
    targets = {what: path for what, path in written.items() if path is not None}
    sources = [path for path in read if path is not None]
    for what, path in targets.items():
        if not path.parent.is_dir():
            raise UserError(f"There is no folder {path.parent} for the {what}: create it first.")
        if path.is_dir():
            raise UserError(f"{path} is a folder: name a file in it for the {what}.")
        if path.exists() and not path.is_file():
            # A device, a pipe: it would be replaced by a file.
            raise UserError(f"{path} is not a regular file: name another one for the {what}.")
        if any(_same(path, source) for source in sources):
            raise UserError(f"The {what} {path} would be written over what is read: choose another name.")
    for (what, path), (other, other_path) in itertools.combinations(targets.items(), 2):
        if _same(path, other_path):
            raise UserError(f"The {what} and the {other} would both be {path}: choose another name for one of them.")


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)
