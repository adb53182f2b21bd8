"""Models from a local path, copied into the cache so that they have a name and outlive the original."""

from __future__ import annotations

from pathlib import Path

from gristmill.models.cache import imported_folder
from gristmill.models.catalog import CATALOG
from gristmill.models.checked_file import chunks, intact, require_room, sha256_of, write_checked, writing_to
from gristmill.models.ir_folder import MODEL_FILE, POOLING_FILE, is_ir_file
from gristmill.models.locate import LocalModel, open_path
from gristmill.models.progress import Report, human_size
from gristmill.models.receipt import Pulled, Receipt, ReceiptFile, receipts_in, remove_receipt, write_receipt
from gristmill.models.split import gguf_files
from gristmill.user_error import UserError


def import_model(text: str, report: Report) -> Pulled:
    """Check the model at the path ``text`` and copy it. Its name is the file's or folder's.

    Raises UserError when there is no usable model, its name is taken, or there is no room.
    """
    model = open_path(text)
    if model.name in CATALOG:
        raise UserError(f"The catalog already has a model '{model.name}': rename '{model.path.name}' and pull it.")
    folder = imported_folder(model.name)
    with writing_to(folder, report):
        sources = _sources(model)
        existing = receipts_in(folder)
        if existing and _same(existing[0], sources) and intact(existing[0]):
            report.say(f"{model.name} is already in the cache and intact.")
            return existing[0]
        total = sum(path.stat().st_size for path in sources.values())
        require_room(folder, total)
        report.say(f"{model.name}: {human_size(total)} to copy.")
        for outdated in existing:
            remove_receipt(outdated)
        files, done = [], 0
        for name, source in sources.items():
            with source.open("rb") as file:
                sha256 = write_checked(folder / name, chunks(file), None)
            files.append(ReceiptFile(name, source.stat().st_size, sha256))
            done += files[-1].size
            report.advance(done, total)
        main = MODEL_FILE if model.kind == "ir" else model.path.name
        return write_receipt(folder, Receipt(model.name, model.kind, main, tuple(files)))


def _sources(model: LocalModel) -> dict[str, Path]:
    """By the paths they have in the model's folder."""
    if model.kind == "gguf":
        files = [*gguf_files(model.path), *([model.projector] if model.projector else [])]
        return {path.name: path for path in files}
    sources = {path.name: path for path in sorted(model.path.iterdir()) if is_ir_file(path.name) and path.is_file()}
    pooling = model.path / POOLING_FILE
    return sources | ({POOLING_FILE: pooling} if pooling.is_file() else {})


def _same(pulled: Pulled, sources: dict[str, Path]) -> bool:
    known = {file.path: file for file in pulled.receipt.files}
    if known.keys() != sources.keys():
        return False
    return all(sha256_of(source) == known[name].sha256 for name, source in sources.items())
