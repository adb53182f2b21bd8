"""What there is to know of a model, for ``gristmill models list`` and ``show``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from gristmill.extras import require
from gristmill.models.cache import cache_folder
from gristmill.models.catalog import CATALOG
from gristmill.models.defaults import NO_DEFAULTS, ModelDefaults
from gristmill.models.gguf_header import read_header
from gristmill.models.ir_folder import configuration, weight_type
from gristmill.models.locate import LocalModel, find_pulled, locate
from gristmill.models.ollama.manifest import model_blob, prefixed, read_config, read_manifest
from gristmill.models.ollama.rewritten import rewriting_of
from gristmill.models.ollama.store import stored_manifests
from gristmill.models.receipt import Pulled, receipts_in
from gristmill.models.split import gguf_files
from gristmill.user_error import UserError


class ModelRow(msgspec.Struct, frozen=True):
    """A line of the list. ``size`` in bytes; ``path`` is None for a model that is not on this machine, what
    follows where it is not known."""

    name: str
    source: str
    licence: str | None
    size: int
    pulled: bool
    kind: Literal["gguf", "ir"]
    path: str | None
    architecture: str | None = None
    quantisation: str | None = None
    parameters: int | None = None


class ModelDescription(msgspec.Struct, frozen=True):
    """``size`` in bytes, ``context_length`` in tokens; None where the model's files do not say."""

    name: str
    kind: str
    path: str
    size: int
    licence: str | None
    architecture: str | None
    quantisation: str | None
    parameters: int | None
    context_length: int | None
    revision: str | None
    projector: str | None = None
    #: What was made of a file in Ollama's own layout, where it has been.
    rewritten: str | None = None
    defaults: ModelDefaults = NO_DEFAULTS


def known_models() -> list[ModelRow]:
    """The catalog, pulled or not, then what else was pulled, then Ollama's, each by name."""
    rows = []
    for model in CATALOG.values():
        pulled = find_pulled(model.name)
        path = str(pulled.path) if pulled is not None else None
        here = pulled is not None
        known = model.architecture, model.quantisation
        rows.append(ModelRow(model.name, "catalog", model.licence, model.size, here, "gguf", path, *known))
    models = cache_folder() / "models"
    for source, depth in (("hub", "*/*"), ("imported", "*")):
        for folder in sorted((models / source).glob(depth)):
            rows.extend(_row(pulled, source) for pulled in receipts_in(folder))
    return [*rows, *_ollama_rows()]


def _ollama_rows() -> Iterator[ModelRow]:
    """Without those whose manifests cannot be read, which ``locate`` would say of them."""
    for stored in stored_manifests():
        try:
            manifest = read_manifest(stored)
            config = read_config(stored, manifest)
        except UserError:
            continue
        path = model_blob(stored, manifest)
        if path is not None:
            known = config.model_family or None, config.file_type or None, config.parameters
            yield ModelRow(prefixed(stored.name), "ollama", None, manifest.size, True, "gguf", str(path), *known)


def _row(pulled: Pulled, source: str) -> ModelRow:
    receipt, path = pulled.receipt, pulled.path
    try:
        model = LocalModel(receipt.name, path, receipt.kind)
        facts = _gguf_facts(model) if receipt.kind == "gguf" else _ir_facts(model)
        known = facts.architecture, facts.quantisation, facts.parameters
    except (UserError, OSError):
        # Damaged, or the package that reads it is not installed: it is here, all the same.
        known = None, None, None
    return ModelRow(receipt.name, source, receipt.licence, receipt.size, True, receipt.kind, str(path), *known)


def describe(name_or_path: str) -> ModelDescription:
    """The facts of a model on this machine, read from its files. Raises UserError when it is not here."""
    model = locate(name_or_path)
    pulled = find_pulled(name_or_path)
    if model.kind == "gguf":
        facts = msgspec.structs.replace(_gguf_facts(model), rewritten=_rewritten(model))
    else:
        facts = _ir_facts(model)
    if pulled is None:
        return facts
    receipt = pulled.receipt
    return msgspec.structs.replace(
        facts, licence=receipt.licence or facts.licence, size=receipt.size, revision=receipt.revision
    )


def _rewritten(model: LocalModel) -> str | None:
    rewriting = rewriting_of(model.path, model.name)
    return str(rewriting.target) if rewriting is not None and rewriting.done else None


def _gguf_facts(model: LocalModel) -> ModelDescription:
    files = gguf_files(model.path)
    headers = [read_header(file) for file in files]
    header = headers[0]
    architecture = header.metadata.get("general.architecture")
    context_length = header.metadata.get(f"{architecture}.context_length")
    licence = header.metadata.get("general.license")
    return ModelDescription(
        name=model.name,
        kind="gguf",
        path=str(model.path),
        size=sum(file.stat().st_size for file in files),
        licence=str(licence) if licence else None,
        architecture=str(architecture) if architecture else None,
        quantisation=_quantisation(header.metadata.get("general.file_type")),
        parameters=sum(each.parameters for each in headers),
        context_length=int(context_length) if context_length else None,
        revision=None,
        projector=str(model.projector) if model.projector else None,
        defaults=model.defaults,
    )


def _quantisation(file_type: str | int | float | bool | None) -> str | None:
    try:
        name: str = require("gguf").LlamaFileType(file_type).name
    except ValueError:
        return None
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _ir_facts(model: LocalModel) -> ModelDescription:
    config = configuration(model.path)
    return ModelDescription(
        name=model.name,
        kind="ir",
        path=str(model.path),
        size=sum(path.stat().st_size for path in Path(model.path).iterdir() if path.is_file()),
        licence=None,
        architecture=config.get("model_type"),
        quantisation=weight_type(model.path),
        parameters=None,
        context_length=config.get("max_position_embeddings"),
        revision=None,
    )
