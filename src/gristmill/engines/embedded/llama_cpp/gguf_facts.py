"""What the header of a model's file says of its size; and which files are no models at all."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gristmill.models.gguf_header import GgufHeader, read_header
from gristmill.models.split import gguf_files
from gristmill.user_error import UserError

#: Files that are parts of a model, by ``general.type`` or, in older ones, their architecture.
_PARTS = {
    "adapter": "an adapter (LoRA), which changes a model and is none: merge it into its model with llama.cpp's "
    "llama-export-lora, and load what that writes",
    "mmproj": "the picture half of a model (mmproj): load the language model that it belongs to",
    "clip": "the picture half of a model (mmproj): load the language model that it belongs to",
    "imatrix": "an importance matrix, by which a model is quantized: load the model",
}


class GgufFacts(NamedTuple):
    """``weight_bytes`` of all of its files together. ``context_length``: tokens it was trained for. ``kv_values``: keys
    and values of one token, all layers together. ``width``: of the hidden state."""

    architecture: str
    layers: int
    weight_bytes: int
    context_length: int
    vocabulary_size: int
    width: int
    kv_values: int


def read_facts(path: Path) -> GgufFacts:
    """Raises UserError for a file that is cut short, or no language model."""
    files = gguf_files(path)
    headers = [read_header(file) for file in files]
    _refuse_parts(path, headers[0])
    facts = gguf_facts(headers[0], sum(file.stat().st_size for file in files))
    if not facts.vocabulary_size:
        raise UserError(f"The model '{path}' has no vocabulary, so that it can read no text: use a file that has one.")
    if not facts.layers or not facts.width or not facts.context_length:
        raise UserError(f"The GGUF file '{path}' does not say how large its model is: download or convert it again.")
    return facts


def gguf_facts(header: GgufHeader, weight_bytes: int) -> GgufFacts:
    """0 for what the header does not say. Pure."""
    architecture = str(header.metadata.get("general.architecture", ""))

    def values(key: str, otherwise: int = 0) -> list[int]:
        name = f"{architecture}.{key}"
        found = header.numbers.get(name) or (header.metadata.get(name, otherwise),)
        return [int(each) for each in found]

    layers, width = max(values("block_count")), max(values("embedding_length"))
    heads = max(values("attention.head_count"))
    length = width // heads if heads else 0
    return GgufFacts(
        architecture=architecture,
        layers=layers,
        weight_bytes=weight_bytes,
        context_length=max(values("context_length")),
        vocabulary_size=header.lengths.get("tokenizer.ggml.tokens", 0),
        width=width,
        kv_values=_kv_values(
            layers,
            values("attention.head_count_kv", heads),
            values("attention.key_length", length),
            values("attention.value_length", length),
        ),
    )


def _kv_values(layers: int, heads: list[int], keys: list[int], values: list[int]) -> int:
    """Each list has a number a layer, or one for all; a layer without heads keeps no keys."""
    heads, keys, values = (each * layers if len(each) == 1 else each for each in (heads, keys, values))
    return sum(count * (key + value) for count, key, value in zip(heads, keys, values, strict=False))


def _refuse_parts(path: Path, header: GgufHeader) -> None:
    for key in ("general.type", "general.architecture"):
        if what := _PARTS.get(str(header.metadata.get(key))):
            raise UserError(f"'{path}' is {what}.")
