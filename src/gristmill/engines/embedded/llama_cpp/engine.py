"""The embedded engine on llama.cpp."""

from __future__ import annotations

from typing import Literal

from gristmill.engines.embedded.embedding_runner import EmbeddingOptions
from gristmill.engines.embedded.engine import EmbeddedEngine
from gristmill.engines.embedded.process import Heartbeat
from gristmill.engines.options import parse_options
from gristmill.models.fingerprint import model_fingerprint
from gristmill.models.locate import LocalModel, locate
from gristmill.user_error import UserError

DEFAULT_MODEL = "smollm2-135m-instruct"


class LlamaCppOptions(EmbeddingOptions, frozen=True):
    """How much the engine may use, and how it computes."""

    #: Layers that the GPUs compute, the output counted as one; none: as many as there is room for. Without a GPU it
    #: changes nothing.
    gpu_layers: int | None = None
    #: How keys and values are kept. f32 is exact and twice as large as f16; q8_0 is half as large, and needs flash
    #: attention.
    kv_type: Literal["f16", "f32", "q8_0"] = "f16"
    #: auto: where llama.cpp has it for the model and what computes.
    flash_attention: Literal["auto", "on", "off"] = "auto"
    #: A libllama, or a folder with one, instead of the installed package's.
    library: str = ""

    @staticmethod
    def parse(options: dict[str, str]) -> LlamaCppOptions:
        return parse_options(LlamaCppOptions, options, "llama_cpp")


class LlamaCppEngine(EmbeddedEngine):
    """Runs GGUF files of every architecture that llama.cpp knows, on the CPU and the GPUs of this machine."""

    name = "llama_cpp"
    loader = "gristmill.engines.embedded.llama_cpp.loading:load_model"

    def __init__(self, options: LlamaCppOptions, model: str | None = None, heartbeat: Heartbeat | None = None) -> None:
        super().__init__(options, model or DEFAULT_MODEL, heartbeat)
        self._computing = f"{options.kv_type} {options.flash_attention} {options.pooling}"

    def served_name(self) -> str:
        return locate_gguf(self._source).name

    def model_fingerprint(self) -> str:
        return f"{self._computing} {model_fingerprint(locate(self._source))}"


def locate_gguf(source: str) -> LocalModel:
    """Raises UserError when the model is not on this machine, or no GGUF file."""
    model = locate(source)
    if model.kind != "gguf":
        raise UserError(
            f"The model '{source}' is OpenVINO IR, which the llama_cpp engine cannot load: use --engine openvino."
        )
    return model
