"""A folder with a model in OpenVINO's intermediate representation (IR), and its tokenizer: as OpenVINO graphs where
the model writes, as a ``tokenizer.json`` where it embeds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from gristmill.user_error import UserError

MODEL_FILE = "openvino_model.xml"
REQUIRED_FILES = tuple(
    f"openvino_{part}.{suffix}" for part in ("model", "tokenizer", "detokenizer") for suffix in ("xml", "bin")
)
TOKENIZER_FILE = "tokenizer.json"
#: What a model that embeds needs instead, and the file that says how it pools, if there is one.
EMBEDDING_FILES = (MODEL_FILE, "openvino_model.bin", TOKENIZER_FILE)
POOLING_FILE = "1_Pooling/config.json"
#: The outputs of graphs that were exported to embed: a vector for each token (the names of transformers and of
#: sentence-transformers), or one for each input.
TOKEN_VECTORS = ("last_hidden_state", "token_embeddings")
INPUT_VECTORS = "sentence_embedding"
#: Where they are named, as one of a port's names.
_EMBEDS = re.compile(rb'names="(?:[^"]*,)?(?:last_hidden_state|token_embeddings|sentence_embedding)(?:,[^"]*)?"')
#: A constant of the graph: its element type, and where its bytes are in the .bin file.
_CONSTANT = re.compile(rb'<data element_type="(\w+)"[^>]* offset="(\d+)" size="(\d+)"')


def check_ir(folder: Path) -> None:
    """Raises UserError when a file is missing or cut short."""
    if not (folder / MODEL_FILE).is_file():
        raise UserError(f"There is no model in the folder '{folder}': it has no {MODEL_FILE}.")
    required = EMBEDDING_FILES if exported_to_embed(folder) else REQUIRED_FILES
    missing = [name for name in required if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"The OpenVINO IR folder '{folder}' is incomplete, it has no {', '.join(missing)}: "
            "export the model again with its tokenizer, or give the path of a GGUF file."
        )
    for xml in (name for name in required if name.endswith(".xml")):
        text = (folder / xml).read_bytes()
        end = max((int(offset) + int(size) for _, offset, size in _CONSTANT.findall(text)), default=0)
        weights = (folder / xml).with_suffix(".bin")
        if not text.rstrip().endswith(b"</net>"):
            raise UserError(f"The OpenVINO IR file '{folder / xml}' is damaged or cut short: copy it again.")
        if weights.stat().st_size < end:
            raise UserError(f"The OpenVINO IR file '{weights}' is cut short: download or copy it again.")


def exported_to_embed(folder: Path) -> bool:
    """Whether the graph gives vectors, not logits."""
    return _EMBEDS.search((folder / MODEL_FILE).read_bytes()) is not None


def is_ir_file(name: str) -> bool:
    """The graphs, their weights and the small texts around them; not the original weights a folder may also
    hold."""
    if name.startswith("openvino_") and name.endswith((".xml", ".bin")):
        return True
    return name.endswith((".json", ".jinja", ".model")) or name == "merges.txt"


def weight_type(folder: Path) -> str | None:
    """The element type most of the weights' bytes are stored in ("f16", "i8", "u4" ...)."""
    sizes: dict[str, int] = {}
    for kind, _, size in _CONSTANT.findall((folder / MODEL_FILE).read_bytes()):
        sizes[kind.decode()] = sizes.get(kind.decode(), 0) + int(size)
    return max(sizes, key=lambda kind: sizes[kind], default=None)


def configuration(folder: Path) -> dict[str, Any]:
    """The model's ``config.json``; empty when there is none or it is not an object."""
    try:
        content = msgspec.json.decode((folder / "config.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    return content if isinstance(content, dict) else {}
