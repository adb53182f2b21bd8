"""What tells a model from another, whatever it is called: its files and what it brings for requests."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from gristmill.models.checked_file import sha256_of
from gristmill.models.defaults import NO_DEFAULTS
from gristmill.models.locate import LocalModel
from gristmill.models.split import gguf_files

#: Ollama's blobs are called by what they hold.
_BLOB = re.compile(r"sha256-([0-9a-fA-F]{64})")


def model_fingerprint(model: LocalModel) -> str:
    """Reads all of the files, but for those whose name is their checksum: gigabytes, in a thread."""
    files = [path for each in (model.path, model.projector) if each is not None for path in _files(each)]
    digests = [f"{path.name}={_digest(path)}" for path in files]
    if model.defaults != NO_DEFAULTS:
        digests.append(f"defaults={hashlib.sha256(msgspec.json.encode(model.defaults)).hexdigest()}")
    return " ".join(digests)


def _files(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else gguf_files(path)


def _digest(path: Path) -> str:
    named = _BLOB.fullmatch(path.name)
    return named[1].lower() if named else sha256_of(path)
