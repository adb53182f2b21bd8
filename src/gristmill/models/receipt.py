"""What was pulled, and how to know that it is still intact: a small JSON file next to the model.

It is written last, so a model without a receipt was never completely pulled.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from gristmill.user_path import is_there

SUFFIX = ".receipt.json"


class ReceiptFile(msgspec.Struct, frozen=True):
    """``path`` is relative to the receipt's folder; ``size`` in bytes; ``sha256`` as measured when it was
    pulled."""

    path: str
    size: int
    sha256: str


class Receipt(msgspec.Struct, frozen=True):
    """``main`` is the GGUF file or openvino_model.xml, relative to the receipt's folder. ``revision`` is the
    commit of a hub repository."""

    name: str
    kind: Literal["gguf", "ir"]
    main: str
    files: tuple[ReceiptFile, ...]
    licence: str | None = None
    revision: str | None = None

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class Pulled(msgspec.Struct, frozen=True):
    """A receipt and the folder it lies in."""

    folder: Path
    receipt: Receipt

    @property
    def path(self) -> Path:
        """What an engine opens: the GGUF file, or the folder of the IR."""
        main = self.folder / self.receipt.main
        return main if self.receipt.kind == "gguf" else main.parent

    def files_present(self) -> bool:
        """Whether each file is there with its size; contents are not read."""
        for file in self.receipt.files:
            try:
                if (self.folder / file.path).stat().st_size != file.size:
                    return False
            except OSError:
                return False
        return True


def write_receipt(folder: Path, receipt: Receipt) -> Pulled:
    path = folder / (receipt.main.replace("/", "--") + SUFFIX)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(receipt)) + b"\n")
    os.replace(temporary, path)  # noqa: PTH105 - atomic, and says so
    return Pulled(folder, receipt)


def remove_receipt(pulled: Pulled) -> None:
    (pulled.folder / (pulled.receipt.main.replace("/", "--") + SUFFIX)).unlink(missing_ok=True)


def receipts_in(folder: Path) -> list[Pulled]:
    """The models pulled into ``folder``, by name. A receipt that cannot be read counts as not pulled, and so does all
    in a folder that cannot be, or whose name is too long for one."""
    if not is_there(folder):
        return []
    found = []
    for path in sorted(folder.glob("*" + SUFFIX)):
        try:
            found.append(Pulled(folder, msgspec.json.decode(path.read_bytes(), type=Receipt)))
        except (OSError, msgspec.DecodeError):
            continue
    return found
