"""From the name or path a user gives to the files of a model on this machine, checked, or one clear sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from gristmill.models.cache import catalog_folder, hub_folder
from gristmill.user_error import UserError

GGUF_MAGIC = b"GGUF"
IR_FILES = ("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml", "openvino_tokenizer.bin")


class LocalModel(NamedTuple):
    """``path`` is the GGUF file, or the folder of the OpenVINO IR. ``name`` is what requests call the model."""

    name: str
    path: Path
    kind: Literal["gguf", "ir"]


def locate(name_or_path: str) -> LocalModel:
    """A pulled model by its catalog name or hub id, or a local GGUF file or OpenVINO IR folder.

    Raises UserError when there is none, or when the file is damaged or the folder incomplete.
    """
    pulled = _pulled(catalog_folder(name_or_path), name_or_path)
    if pulled is not None:
        return pulled
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _ir(path)
    if path.is_file():
        return _gguf(path)
    repo, _, file = name_or_path.partition(":")
    pulled = _pulled(hub_folder(repo), name_or_path, file or "*.gguf")
    if pulled is not None:
        return pulled
    raise UserError(
        f"There is no model '{name_or_path}' on this machine. Run 'gristmill models pull {name_or_path}' first, "
        "or give the path of a GGUF file or an OpenVINO IR folder."
    )


def _pulled(folder: Path, name: str, pattern: str = "*.gguf") -> LocalModel | None:
    files = sorted(folder.glob(pattern)) if folder.is_dir() else []
    if files:
        return LocalModel(name, files[0], "gguf")
    if (folder / IR_FILES[0]).is_file():
        return LocalModel(name, folder, "ir")
    return None


def _gguf(path: Path) -> LocalModel:
    with path.open("rb") as file:
        if file.read(4) != GGUF_MAGIC:
            raise UserError(f"'{path}' is not a GGUF file. Give the path of a .gguf file or an OpenVINO IR folder.")
    return LocalModel(path.stem, path.absolute(), "gguf")


def _ir(folder: Path) -> LocalModel:
    missing = [name for name in IR_FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"The OpenVINO IR folder '{folder}' is incomplete: it has no {', '.join(missing)}. "
            "Export the model again, or give the path of a GGUF file."
        )
    return LocalModel(folder.absolute().name, folder.absolute(), "ir")
