"""From the name or path a user gives to the files of a model on this machine, checked, or one clear error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from gristmill.models.cache import catalog_folder, hub_folder, imported_folder
from gristmill.models.catalog import CATALOG
from gristmill.models.defaults import NO_DEFAULTS, ModelDefaults
from gristmill.models.gguf_header import read_header
from gristmill.models.ir_folder import check_ir
from gristmill.models.ollama.name import PREFIX as OLLAMA
from gristmill.models.ollama.open import open_ollama_model
from gristmill.models.receipt import Pulled, receipts_in
from gristmill.models.split import first_file, gguf_files, split_name
from gristmill.user_error import UserError
from gristmill.user_path import user_path

#: organisation/repository, and the file after a colon; neither may climb out of the cache with "..".
HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(:(?P<file>(?!.*\.\.)\w[\w./ -]*))?")
_PLAIN_NAME = re.compile(r"\w[\w.-]*")


class LocalModel(NamedTuple):
    """``path`` is the GGUF file (of several, the first), or the folder of the OpenVINO IR. ``name`` is what requests
    call the model. ``projector``: the GGUF file that makes images into what it reads; None where there is none."""

    name: str
    path: Path
    kind: Literal["gguf", "ir"]
    projector: Path | None = None
    defaults: ModelDefaults = NO_DEFAULTS


def locate(name_or_path: str) -> LocalModel:
    """A pulled model by its catalog name or hub id, one of Ollama's (``ollama:gemma3:12b``), or a local GGUF file or
    OpenVINO IR folder.

    A pulled model comes before a file or folder of the same name: write ``./name`` for the latter. Raises
    UserError when there is none, or when the file is damaged or the folder incomplete.
    """
    if name_or_path.startswith(OLLAMA):
        return _locate_ollama(name_or_path.removeprefix(OLLAMA))
    pulled = find_pulled(name_or_path)
    if pulled is None:
        return open_path(name_or_path)
    if not pulled.files_present():
        raise UserError(
            f"The files of the model '{name_or_path}' in the cache are damaged or gone: "
            f"run 'gristmill models pull {name_or_path}' to repair it."
        )
    projector = projector_beside(pulled.path) if pulled.receipt.kind == "gguf" else None
    return LocalModel(name_or_path, pulled.path, pulled.receipt.kind, projector)


def _locate_ollama(name: str) -> LocalModel:
    model = open_ollama_model(name)
    return LocalModel(name, model.path, "gguf", model.projector, model.defaults)


def find_pulled(name: str) -> Pulled | None:
    """The pulled model of that name, if any; its files are not looked at.

    Raises UserError when a hub id fits several pulled models.
    """
    if _PLAIN_NAME.fullmatch(name):
        found = receipts_in(catalog_folder(name)) or receipts_in(imported_folder(name))
        return found[0] if found else None
    match = HUB_ID.fullmatch(name)
    if match is None:
        return None
    found = receipts_in(hub_folder(match["repo"]))
    if match["file"]:
        found = [pulled for pulled in found if match["file"] in _callable_by(pulled)]
    if len(found) > 1:
        names = ", ".join(f"{match['repo']}:{pulled.receipt.main}" for pulled in found)
        raise UserError(f"Several pulled models fit '{name}': name one of {names}.")
    return found[0] if found else None


def _callable_by(pulled: Pulled) -> set[str]:
    """A model that is split goes by each of its files."""
    receipt = pulled.receipt
    paths = {file.path for file in receipt.files} if receipt.kind == "gguf" else {receipt.main}
    return paths | {Path(path).name for path in paths}


def open_path(text: str) -> LocalModel:
    """The model at a path, checked. Raises UserError when nothing usable is there."""
    path = user_path(text)
    try:
        if path.is_dir():
            check_ir(path)
            return LocalModel(path.name, path, "ir")
        if path.is_file():
            return _open_gguf(path)
    except OSError as error:
        raise UserError(
            f"The model '{path}' cannot be read ({error.strerror or error}): give the path of a GGUF file or an IR "
            "folder that you may read."
        ) from None
    if (text.endswith(".gguf") and ":" not in text) or text.startswith(("/", ".", "~")):
        raise UserError(f"There is no file or folder '{path}': give the path of a GGUF file or an IR folder.")
    if text in CATALOG or HUB_ID.fullmatch(text):
        raise UserError(f"The model '{text}' is not on this machine: run 'gristmill models pull {text}' first.")
    raise UserError(
        f"'{text}' is not a model: give a name that 'gristmill models list' shows, a hub id "
        "(organisation/repository), or the path of a GGUF file or OpenVINO IR folder."
    )


def _open_gguf(path: Path) -> LocalModel:
    """Any one of several files stands for them all."""
    split = split_name(path.name)
    first = first_file(path)
    for number, file in enumerate(gguf_files(first)):
        metadata = read_header(file).metadata
        if split is not None and (metadata.get("split.no"), metadata.get("split.count")) != (number, split.files):
            raise UserError(
                f"The file '{file}' is not part {number + 1} of {split.files} of a model, whatever its name says: "
                "download or copy the model again."
            )
    return LocalModel(path.stem if split is None else split.stem, first, "gguf", projector_beside(first))


def projector_beside(path: Path) -> Path | None:
    """The projector (mmproj) in the folder of a GGUF file, where there is just one."""
    found = [each for each in path.parent.glob("*mmproj*.gguf") if each.is_file() and each != path]
    return found[0] if len(found) == 1 else None
