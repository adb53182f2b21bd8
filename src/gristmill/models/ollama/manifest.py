"""The manifest of an Ollama model, and the parts that it names: blobs, each called by its SHA-256.

Format and media types: https://github.com/ollama/ollama/blob/main/manifest/manifest.go, ``GetModel`` in
https://github.com/ollama/ollama/blob/main/server/images.go.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from gristmill.models.ollama.name import PREFIX, OllamaName
from gristmill.models.ollama.store import StoredManifest, read_blob, unreadable
from gristmill.user_error import UserError

_MEDIA_TYPE = "application/vnd.ollama.image."
_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([KMBT])")
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
#: Ollama itself ignores embeddings; a draft model changes how fast an answer comes, not the answer.
_WITHOUT_EFFECT = frozenset({"embed", "draft"})
#: Of models that Ollama's engine for Apple's processors runs.
_SAFETENSORS = frozenset({"tensor", "json"})
_SINGLE = frozenset({"model", "template", "system", "params", "messages"})
_SEVERAL = frozenset({"adapter", "projector", "license"})


class Layer(msgspec.Struct, frozen=True, rename="camel"):
    """``size`` in bytes."""

    media_type: str
    digest: str
    size: int


class OllamaManifest(msgspec.Struct, frozen=True):
    layers: list[Layer]
    config: Layer | None = None

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)


class Config(msgspec.Struct, frozen=True):
    """What Ollama noted of the model. ``renderer``: Ollama writes its prompts by code of its own, not by the
    template."""

    model_format: str = ""
    model_family: str = ""
    model_type: str = ""
    file_type: str = ""
    renderer: str = ""
    parser: str = ""
    remote_host: str = ""

    @property
    def parameters(self) -> int | None:
        """About how many, of a ``model_type`` such as 12.2B; None where it says nothing."""
        found = _COUNT.fullmatch(self.model_type)
        return int(float(found[1]) * _UNITS[found[2]]) if found else None


class Parts(NamedTuple):
    """The blobs of a model, each there and of its full size; ``single`` and ``several`` by the end of their media
    types."""

    name: OllamaName
    manifest: OllamaManifest
    config: Config
    single: dict[str, Path]
    several: dict[str, list[Path]]

    def read(self, kind: str) -> bytes | None:
        return read_blob(self.single[kind]) if kind in self.single else None

    def text(self, kind: str) -> str | None:
        content = self.read(kind)
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError:
            raise broken(self.name, f"its {kind} is not UTF-8") from None


def read_parts(stored: StoredManifest) -> Parts:
    """Raises UserError for a manifest that is none, a part that is missing, cut short or unknown, and for what is no
    GGUF model."""
    manifest = read_manifest(stored)
    name, blobs = stored.name, _blobs(stored)
    config = read_config(stored, manifest)
    if config.remote_host:
        raise UserError(f"The Ollama model '{name}' runs at {config.remote_host}, not here: choose a local one.")
    kinds = {layer.media_type.removeprefix(_MEDIA_TYPE) for layer in manifest.layers}
    if config.model_format not in ("", "gguf") or kinds & _SAFETENSORS:
        raise UserError(
            f"The Ollama model '{name}' is in the format {config.model_format or 'safetensors'}, which only Ollama's "
            "engine for Apple's processors reads: choose a tag of it in GGUF format."
        )
    single: dict[str, Path] = {}
    several: dict[str, list[Path]] = {kind: [] for kind in _SEVERAL}
    for layer in manifest.layers:
        kind = layer.media_type.removeprefix(_MEDIA_TYPE)
        # The old name of it.
        kind = "template" if kind == "prompt" else kind
        if kind in _WITHOUT_EFFECT:
            continue
        if kind not in _SINGLE | _SEVERAL:
            raise UserError(
                f"The Ollama model '{name}' has a part of an unknown kind ('{layer.media_type}'): run it with "
                "--engine ollama, which leaves it to Ollama."
            )
        path = _blob(name, blobs, layer)
        if kind in _SEVERAL:
            several[kind].append(path)
        elif kind == "model" and kind in single:
            raise UserError(
                f"The Ollama model '{name}' consists of several model files: run it with --engine ollama, which leaves "
                "it to Ollama."
            )
        else:
            single[kind] = path
    if "model" not in single:
        raise broken(name, "it has no model file")
    return Parts(name, manifest, config, single, several)


def read_manifest(stored: StoredManifest) -> OllamaManifest:
    """Raises UserError."""
    content = read_blob(stored.path)
    try:
        return msgspec.json.decode(content, type=OllamaManifest)
    except msgspec.DecodeError:
        raise broken(stored.name, f"its manifest '{stored.path}' is not what Ollama writes") from None


def read_config(stored: StoredManifest, manifest: OllamaManifest) -> Config:
    """Raises UserError."""
    if manifest.config is None or not manifest.config.digest:
        return Config()
    path = _blob(stored.name, _blobs(stored), manifest.config)
    try:
        return msgspec.json.decode(read_blob(path), type=Config)
    except msgspec.DecodeError:
        raise broken(stored.name, f"its configuration '{path}' is not what Ollama writes") from None


def model_blob(stored: StoredManifest, manifest: OllamaManifest) -> Path | None:
    """Where the model's own file is; None where the manifest names none. It is not looked at."""
    for layer in manifest.layers:
        if layer.media_type == f"{_MEDIA_TYPE}model" and _DIGEST.fullmatch(layer.digest):
            return _blobs(stored) / layer.digest.replace(":", "-")
    return None


def broken(name: OllamaName, what: str) -> UserError:
    return UserError(f"The Ollama model '{name}' is damaged, {what}: run 'ollama pull {name}' to repair it.")


def _blobs(stored: StoredManifest) -> Path:
    # manifests/host/namespace/model/tag
    return stored.path.parents[4] / "blobs"


def _blob(name: OllamaName, blobs: Path, layer: Layer) -> Path:
    if not _DIGEST.fullmatch(layer.digest):
        raise broken(name, f"its manifest names a blob '{layer.digest[:80]}'")
    path = blobs / layer.digest.replace(":", "-")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise broken(name, f"the blob '{path}' is missing") from None
    except OSError as error:
        raise unreadable(path, error) from None
    if size != layer.size:
        raise broken(name, f"the blob '{path}' has {size:,} bytes instead of {layer.size:,}")
    return path


def prefixed(name: OllamaName) -> str:
    """What the model is called beside those of other sources."""
    return f"{PREFIX}{name}"
