"""Which model the library of an embedded engine can load, as far as its files say. Pure, but for reading those."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gristmill.models.catalog import CATALOG
from gristmill.models.gguf_header import GgufHeader, read_header
from gristmill.models.locate import LocalModel
from gristmill.models.split import gguf_files

#: ``create_from_gguf`` in openvino.genai's src/cpp/src/gguf_utils/gguf_modeling.cpp.
_OPENVINO_READS = frozenset({"llama", "qwen2", "qwen3"})
#: Graphs that are built here instead, with the bytes that a weight takes meanwhile; llama.cpp reads the tokenizer.
_BUILT_HERE = {"gemma3": 4}

#: Of architectures that llama.cpp calls otherwise, or does not know.
_OLLAMAS_NAMES = frozenset({"deepseekocr", "glm4moelite", "glmocr", "gptoss", "mllama", "qwen25vl"})


class ModelFacts(NamedTuple):
    """``name`` as the user calls it. ``parameters``: how many the weights have; None where that is not known.
    ``experts``, ``scaled_rope``: what OpenVINO's GGUF reader passes over in silence and ``gguf_rotary`` does not mend.
    ``sees``: it has a projector for images. ``ollamas_own``: a layout that Ollama's llama.cpp alone reads."""

    name: str
    kind: Literal["gguf", "ir"]
    architecture: str | None = None
    parameters: int | None = None
    split: bool = False
    experts: bool = False
    scaled_rope: bool = False
    sees: bool = False
    ollamas_own: bool = False

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
        ollamas_own=any(map(_is_ollamas_own, headers)),
    )


def _is_ollamas_own(header: GgufHeader) -> bool:
    """Files that Ollama itself made of some models, and translates as it loads them: the picture half in the same file,
    or names of its own. The marks are those of llama/compat in its repository."""
    architecture = header.metadata.get("general.architecture")
    if architecture in _OLLAMAS_NAMES:
        return True
    if architecture == "gemma3" and f"{architecture}.attention.layer_norm_rms_epsilon" not in header.metadata:
        return True
    return architecture not in (None, "clip") and any(name.startswith(("v.", "mm.")) for name in header.tensors)


def openvino_obstacle(facts: ModelFacts) -> str | None:
    """Why OpenVINO cannot load it, as the end of a sentence; None where it can."""
    if facts.kind == "ir":
        return None
    if facts.ollamas_own:
        return _OLLAMAS_OWN
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
    if facts.ollamas_own:
        return _OLLAMAS_OWN
    return "it is OpenVINO IR, which llama.cpp does not read" if facts.kind == "ir" else None
