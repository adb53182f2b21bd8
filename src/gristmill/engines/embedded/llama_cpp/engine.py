"""The embedded engine on llama.cpp."""

from __future__ import annotations

import asyncio
from typing import Literal, TypeVar

import msgspec

from gristmill.engines.embedded.embeddings.embedding_runner import EmbeddingOptions
from gristmill.engines.embedded.engine import EmbeddedEngine
from gristmill.engines.embedded.llama_cpp.projector_file import projector_of
from gristmill.engines.embedded.model_runner import EmbeddedOptions
from gristmill.engines.embedded.support import llama_cpp_obstacle, read_model_facts
from gristmill.engines.embedded.worker.frames import Ready
from gristmill.engines.embedded.worker.heartbeat import Heartbeat
from gristmill.engines.embedded.worker.process import WorkerProcess
from gristmill.engines.options import parse_options
from gristmill.engines.process_exit import OUT_OF_MEMORY
from gristmill.engines.supervision import ProcessDied
from gristmill.models.checked_file import sha256_of
from gristmill.models.fingerprint import model_fingerprint
from gristmill.models.locate import LocalModel, locate
from gristmill.models.ollama.layout import RULES
from gristmill.models.ollama.name import PREFIX as OLLAMA
from gristmill.models.ollama.rewritten import Rewriting, rewriting_of
from gristmill.models.progress import human_size
from gristmill.telemetry.log import get_logger
from gristmill.user_error import UserError

log = get_logger(__name__)

T = TypeVar("T", bound=EmbeddedOptions)

DEFAULT_MODEL = "smollm2-135m-instruct"

#: Steps are not made smaller than this, in tokens.
_FEWEST_TOKENS = 64


class LlamaCppOptions(EmbeddingOptions, frozen=True):
    """How much the engine may use, and how it computes."""

    # What is fastest: every token's attention walks the cells of all rows, so that many rows can be slower than few.
    max_rows: int = 0
    step_tokens: int = 0
    #: Layers that the GPUs compute, the output counted as one; none: as many as there is room for. Without a GPU it
    #: changes nothing.
    gpu_layers: int | None = None
    #: How keys and values are kept. f32 is exact and twice as large as f16; q8_0 is half as large, and needs flash
    #: attention.
    kv_type: Literal["f16", "f32", "q8_0"] = "f16"
    #: auto: where llama.cpp has it for the model and what computes, but not with kv_type=f32: it would make f16 of that
    #: (``llm_graph_context::build_attn_mha``).
    flash_attention: Literal["auto", "on", "off"] = "auto"
    #: A row's label scores are the same to the bit, whatever is computed beside it; slower.
    same_bits: bool = False
    #: The GGUF file that makes images into what the model reads (mmproj); empty: the one that lies beside the model or
    #: belongs to it; none: images are refused.
    projector: str = ""
    #: A libllama, or a folder with one, instead of the installed package's.
    library: str = ""

    @property
    def asked_attention(self) -> Literal["auto", "on", "off"]:
        """``flash_attention``, as llama.cpp is to be asked for it."""
        return "off" if (self.kv_type, self.flash_attention) == ("f32", "auto") else self.flash_attention

    @staticmethod
    def parse(options: dict[str, str]) -> LlamaCppOptions:
        return parse_options(LlamaCppOptions, options, "llama_cpp")


class LlamaCppEngine(EmbeddedEngine):
    """Runs GGUF files of every architecture that llama.cpp knows, on the CPU and the GPUs of this machine."""

    name = "llama_cpp"
    loader = "gristmill.engines.embedded.llama_cpp.loading:load_model"

    def __init__(self, options: LlamaCppOptions, model: str | None = None, heartbeat: Heartbeat | None = None) -> None:
        super().__init__(options, model or DEFAULT_MODEL, heartbeat)
        self._projector = options.projector
        alone = " same bits" if options.same_bits else ""
        self._computing = f"{options.kv_type} {options.asked_attention} {options.pooling}{alone}"

    async def _start_worker(self) -> tuple[WorkerProcess, Ready]:
        before = self._options
        try:
            return await super()._start_worker()
        except ProcessDied as error:
            self._note_death(str(error))
            if before.max_rows or self._options is before:
                raise
            # Perhaps while it measured steps that are larger than those from now on.
            return await super()._start_worker()

    def _note_death(self, how: str) -> None:
        """Some backends end the process where a GPU's memory is full: the rows come again, in smaller steps."""
        if not OUT_OF_MEMORY.search(how):
            return
        limits = self._limits
        self._options = smaller_steps(
            msgspec.structs.replace(self._options, max_rows=limits.max_rows, step_tokens=limits.step_tokens)
        )
        log.warning(
            "embedded engine", smaller_steps="memory ran out", max_rows=self._options.max_rows,
            step_tokens=self._options.step_tokens,
        )  # fmt: skip

    async def start(self) -> None:
        """Says what is rewritten first, as that takes a while; the worker does it, which can be stopped at any time."""
        rewriting = await asyncio.to_thread(find_rewriting, self._source)
        if rewriting is not None and not rewriting.done:
            log.warning("embedded engine", notice=_announced(self._source, rewriting))
        await super().start()

    def served_name(self) -> str:
        return locate_gguf(self._source).name

    def model_fingerprint(self) -> str:
        model = locate(self._source)
        # Rewritten by other rules, the same file may compute otherwise.
        rules = f"rules {RULES} " if find_rewriting(self._source) else ""
        projector = projector_of(model, self._projector)
        seeing = "" if projector is None else f"{sha256_of(projector)} "
        return f"{self._computing} {rules}{seeing}{model_fingerprint(model)}"


def smaller_steps(options: T) -> T:
    """Half of the rows, and of the tokens, at a time. Pure."""
    return msgspec.structs.replace(
        options, max_rows=max(options.max_rows // 2, 1), step_tokens=max(options.step_tokens // 2, _FEWEST_TOKENS)
    )


def locate_gguf(source: str) -> LocalModel:
    """Raises UserError when the model is not on this machine, or no GGUF file."""
    model = locate(source)
    if model.kind != "gguf":
        raise UserError(
            f"The model '{source}' is OpenVINO IR, which the llama_cpp engine cannot load: use --engine openvino."
        )
    if obstacle := llama_cpp_obstacle(read_model_facts(source, model)):
        raise UserError(f"The llama_cpp engine cannot load '{source}': {obstacle}.")
    return model


def find_rewriting(source: str) -> Rewriting | None:
    """None for what llama.cpp reads as it is, or not at all. Raises UserError as ``locate`` does."""
    model = locate(source)
    return rewriting_of(model.path, model.name) if model.kind == "gguf" else None


def _announced(source: str, rewriting: Rewriting) -> str:
    whose = "Ollama's " if source.startswith(OLLAMA) else ""
    folder, name = rewriting.target.parent, source.removeprefix(OLLAMA)
    return f"{whose}{name} is rewritten for llama.cpp once: {human_size(rewriting.size)} in '{folder}'."
