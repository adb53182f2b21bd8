"""What tells a model from another, whatever it is called: its files and what it brings for requests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from gristmill.models.checked_file import checksum
from gristmill.models.defaults import NO_DEFAULTS
from gristmill.models.locate import LocalModel
from gristmill.models.split import gguf_files


def model_fingerprint(model: LocalModel) -> str:
    """Reads all of the files, but for those whose name is their checksum: gigabytes, in a thread."""
    files = [path for each in (model.path, model.projector) if each is not None for path in _files(each)]
    digests = [f"{path.name}={checksum(path)}" for path in files]
    if model.defaults != NO_DEFAULTS:
        digests.append(f"defaults={hashlib.sha256(msgspec.json.encode(model.defaults)).hexdigest()}")
    return " ".join(digests)


def _files(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else gguf_files(path)
