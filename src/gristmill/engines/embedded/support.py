"""Which model the library of an embedded engine can load, as far as its files say. Pure, but for reading those."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gristmill.models.catalog import CATALOG
from gristmill.models.gguf_header import read_header
from gristmill.models.locate import LocalModel
from gristmill.models.ollama.layout import is_ollamas_own
from gristmill.models.ollama.rewritten import readable_layout
from gristmill.models.split import gguf_files

#: ``create_from_gguf`` in openvino.genai's src/cpp/src/gguf_utils/gguf_modeling.cpp.
_OPENVINO_READS = frozenset({"llama", "qwen2", "qwen3"})
#: Graphs that are built here instead, with the bytes that a weight takes meanwhile; llama.cpp reads the tokenizer.
_BUILT_HERE = {"gemma3": 4}


class ModelFacts(NamedTuple):
    """``name`` as the user calls it. ``parameters``: how many the weights have; None where that is not known.
    ``experts``, ``scaled_rope``: what OpenVINO's GGUF reader passes over in silence and ``gguf_rotary`` does not mend.
    ``sees``: it has a projector for images. ``ollamas_own``: a layout that Ollama's llama.cpp alone reads;
    ``rewritable``: it can be rewritten for llama.cpp."""

    name: str
    kind: Literal["gguf", "ir"]
    architecture: str | None = None
    parameters: int | None = None
    split: bool = False
    experts: bool = False
    scaled_rope: bool = False
    sees: bool = False
    ollamas_own: bool = False
    rewritable: bool = False

    @property
    def openvino_bytes(self) -> int:
        """What the weights take in OpenVINO, whatever the file has; 0 where their number is not known."""
        return (self.parameters or 0) * _BUILT_HERE.get(self.architecture or "", 2)

    @property
    def tokenized_by_llama_cpp(self) -> bool:
        """On OpenVINO, too."""
        return self.architecture in _BUILT_HERE


_OLLAMAS_OWN = (
    "its file is in a layout of Ollama's own, which nothing else reads: run it with --engine ollama, or get a file "
    "that llama.cpp's converter wrote, such as with 'ollama pull hf.co/organisation/repository:Q4_K_M'"
)

_REWRITABLE = "its file is in a layout of Ollama's own, which is rewritten for llama.cpp alone"


def catalog_facts(name: str) -> ModelFacts | None:
    """What is known of a model of the catalog before it is here."""
    return ModelFacts(name, "gguf", CATALOG[name].architecture) if name in CATALOG else None


def read_model_facts(name: str, model: LocalModel) -> ModelFacts:
    """Raises UserError for a damaged file."""
    if model.kind == "ir":
        return ModelFacts(name, "ir")
    files = gguf_files(model.path)
    headers = [read_header(file) for file in files]
    metadata = headers[0].metadata
    architecture = metadata.get("general.architecture")
    return ModelFacts(
        name=name,
        kind="gguf",
        architecture=str(architecture) if architecture else None,
        parameters=sum(header.parameters for header in headers),
        split=len(files) > 1,
        experts=bool(metadata.get(f"{architecture}.expert_count")),
        scaled_rope=metadata.get(f"{architecture}.rope.scaling.type", "none") not in ("none", "linear"),
        sees=model.projector is not None,
        ollamas_own=any(map(is_ollamas_own, headers)),
        rewritable=readable_layout(model.path) is not None,
    )


def openvino_obstacle(facts: ModelFacts) -> str | None:
    """Why OpenVINO cannot load it, as the end of a sentence; None where it can."""
    if facts.kind == "ir":
        return None
    if facts.ollamas_own:
        return _REWRITABLE if facts.rewritable else _OLLAMAS_OWN
    if facts.architecture in _BUILT_HERE:
        return None if not facts.split else "for OpenVINO it must be one file, and it is split into several"
    if facts.architecture is not None and facts.architecture not in _OPENVINO_READS:
        return f"OpenVINO's reader does not know {facts.architecture}"
    if facts.experts:
        return "OpenVINO's reader knows no mixture of experts"
    if facts.scaled_rope:
        return "OpenVINO's reader does not scale rotary positions, as this model wants them"
    if facts.split:
        return "OpenVINO's reader takes one file, and this model is split into several"
    return None


def llama_cpp_obstacle(facts: ModelFacts) -> str | None:
    """The same for llama.cpp."""
    if facts.ollamas_own and not facts.rewritable:
        return _OLLAMAS_OWN
    return "it is OpenVINO IR, which llama.cpp does not read" if facts.kind == "ir" else None
