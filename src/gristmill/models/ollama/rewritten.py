"""Files in Ollama's own layout, rewritten once for llama.cpp and kept in the cache.

They are written under a lock and appear in one rename, so that a kill in the middle leaves nothing half-made to be
found, and of two processes the second waits and takes what the first has made.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gristmill.models.cache import cache_folder
from gristmill.models.checked_file import CHUNK, checksum, require_room, writing_to
from gristmill.models.gguf_header import read_header, truncated
from gristmill.models.gguf_layout import GgufLayout, aligned, header_bytes, read_layout, total_bytes
from gristmill.models.ollama.layout import RULES, for_llama_cpp, has_pictures, is_ollamas_own
from gristmill.models.progress import SILENT, Report
from gristmill.models.split import split_name

_FILE = "model.gguf"
_KEY = "[0-9a-f]" * 16
#: Where the kernel, or the file system, does not copy between these two files.
_NOT_BY_KERNEL = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF})
#: Bytes of one call, so that a signal is not kept waiting for all of a file.
_PIECE = 1 << 28


class Rewriting(NamedTuple):
    """``target``: the file for llama.cpp, whether it is there yet or not, and ``size`` what it has or will have, in
    bytes. ``pictures``: the half that reads them is left out of it."""

    source: Path
    target: Path
    layout: GgufLayout
    size: int
    pictures: bool

    @property
    def done(self) -> bool:
        try:
            return self.target.stat().st_size == self.size
        except OSError:
            return False


def rewriting_of(path: Path, name: str) -> Rewriting | None:
    """What ``rewrite`` would make of a GGUF file; None where llama.cpp reads it as it is, or the rules do not fit it.
    ``name``: of the model, as the user calls it. A file whose name is not its checksum is read whole. Raises
    UserError."""
    layout = readable_layout(path)
    if layout is None:
        return None
    original = read_layout(path)
    size = total_bytes(header_bytes(layout), layout.tensors, layout.alignment)
    # The same file may have been rewritten under another name: latest is 4b.
    key = _key(path)
    made = sorted(_root().glob(f"*-{key}/{_FILE}"))
    target = made[0] if made else _root() / f"{_label(name)}-{key}" / _FILE
    return Rewriting(path, target, layout, size, has_pictures(original))


def readable_layout(path: Path) -> GgufLayout | None:
    """The same model as llama.cpp reads it; None as above. Raises UserError."""
    if split_name(path.name) is not None or not is_ollamas_own(read_header(path)):
        return None
    return for_llama_cpp(read_layout(path))


def rewrite(rewriting: Rewriting, report: Report = SILENT) -> Path:
    """Writes the file unless that has been done before. Raises UserError where there is no room, or the disk
    refuses."""
    if rewriting.done:
        return rewriting.target
    folder = rewriting.target.parent
    require_room(folder, rewriting.size)
    with writing_to(folder, report):
        if not rewriting.done:
            _write(rewriting)
    return rewriting.target


@contextmanager
def vocabulary_file(path: Path) -> Iterator[Path]:
    """What llama.cpp reads the tokenizer of a GGUF file from: the file, or its translated header alone. Raises
    UserError."""
    layout = readable_layout(path)
    if layout is None:
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(header_bytes(layout._replace(tensors=())))
        file.flush()
        yield Path(file.name)


def copies_of(name: str, path: Path | None) -> list[Path]:
    """The folders of what has been rewritten of a model. ``path``: its file, None where that is gone."""
    root = _root()
    found = set(root.glob(f"{_label(name)}-{_KEY}/{_FILE}*"))
    if path is not None and path.is_file() and root.is_dir():
        found |= set(root.glob(f"*-{_key(path)}/{_FILE}*"))
    return sorted({file.parent for file in found})


def remove_copies(folders: list[Path]) -> None:
    """Raises UserError where the disk refuses. An engine that has such a file open keeps it until it ends."""
    for folder in folders:
        with writing_to(folder, SILENT):
            for file in folder.glob(f"{_FILE}*"):
                file.unlink(missing_ok=True)
    # The folders stay, with their locks: another process may be waiting for one, to write the file again.


def _write(rewriting: Rewriting) -> None:
    temporary = rewriting.target.with_suffix(".gguf.part")
    layout = rewriting.layout
    try:
        with rewriting.source.open("rb") as source, temporary.open("wb", buffering=0) as target:
            header = header_bytes(layout)
            target.write(header)
            at = len(header)
            for tensor in layout.tensors:
                assert tensor.size is not None
                _copy(source.fileno(), target.fileno(), tensor.start, at, tensor.size, rewriting.source)
                at += aligned(tensor.size, layout.alignment)
            target.truncate(at)
            os.fsync(target.fileno())
        temporary.replace(rewriting.target)
    finally:
        temporary.unlink(missing_ok=True)


def _copy(source: int, target: int, start: int, at: int, size: int, path: Path) -> None:
    """By the kernel, which on some file systems copies nothing at all. Raises OSError, or UserError for a source that
    is too short."""
    done = 0
    by_kernel = hasattr(os, "copy_file_range")
    while done < size:
        if by_kernel:
            try:
                copied = os.copy_file_range(source, target, min(size - done, _PIECE), start + done, at + done)
            except OSError as error:
                if error.errno not in _NOT_BY_KERNEL:
                    raise
                copied = 0
            by_kernel = copied > 0
        else:
            read = os.pread(source, min(size - done, CHUNK), start + done)
            if not read:
                raise truncated(path)
            copied = os.pwrite(target, read, at + done)
        done += copied


def _root() -> Path:
    return cache_folder() / "ollama"


def _label(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII).lstrip(".") or "model"


def _key(path: Path) -> str:
    return hashlib.sha256(f"{checksum(path)} {RULES}".encode()).hexdigest()[:16]
