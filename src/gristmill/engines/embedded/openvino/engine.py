"""The embedded engine on OpenVINO."""

from __future__ import annotations

from typing import Literal

from gristmill.engines.embedded.embeddings.embedding_runner import EmbeddingOptions
from gristmill.engines.embedded.engine import EmbeddedEngine
from gristmill.engines.embedded.support import ModelFacts, catalog_facts, openvino_obstacle, read_model_facts
from gristmill.engines.embedded.worker.heartbeat import Heartbeat
from gristmill.engines.options import parse_options
from gristmill.models.catalog import DEFAULT_MODEL
from gristmill.models.fingerprint import model_fingerprint
from gristmill.models.locate import locate
from gristmill.user_error import UserError


class OpenVinoOptions(EmbeddingOptions, frozen=True):
    """How much the engine may use, and how it computes."""

    #: shared: our own kernel, which reads a shared prefix once for all rows; it needs a C compiler at the first start.
    #: openvino: OpenVINO's, which is also used where ours cannot be.
    attention: Literal["shared", "openvino"] = "shared"
    #: How a GGUF's quantized weights are stored for OpenVINO. f16 keeps log-probabilities within 0.02 of a float32
    #: reference. q8_0 is half the size on disk and about as fast; rounding to it moved log-probabilities by up to 0.3.
    weights: Literal["f16", "q8_0"] = "f16"
    #: Models with two sets of rotary factors (Phi 3 and 4): those for long sequences for all, which makes the whole
    #: context usable, and moves what short prompts are answered.
    long_context: bool = False

    #: The numbers of linear layers. bf16x3: bf16 on AMX, three products for one, as accurate as f32. bf16: OpenVINO's
    #: alone; it moved log-probabilities by up to 0.35. auto: bf16x3 where it has been measured to be faster, else f32.
    precision: Literal["auto", "f32", "bf16x3", "bf16"] = "auto"

    @staticmethod
    def parse(options: dict[str, str]) -> OpenVinoOptions:
        return parse_options(OpenVinoOptions, options, "openvino")


class OpenVinoEngine(EmbeddedEngine):
    """Runs GGUF files of the architectures that OpenVINO knows, and its own IR folders, on the CPU of this machine."""

    name = "openvino"
    loader = "gristmill.engines.embedded.openvino.loading:load_model"

    def __init__(self, options: OpenVinoOptions, model: str | None = None, heartbeat: Heartbeat | None = None) -> None:
        super().__init__(options, model or DEFAULT_MODEL, heartbeat)
        self._computing = f"{options.weights} {options.attention} {options.pooling}{' long' * options.long_context}"

    def served_name(self) -> str:
        # What it cannot load need not be pulled first.
        self._check(catalog_facts(self._source))
        model = locate(self._source)
        self._check(read_model_facts(self._source, model))
        return model.name

    def _check(self, facts: ModelFacts | None) -> None:
        if facts is not None and (obstacle := openvino_obstacle(facts)):
            raise UserError(
                f"The openvino engine cannot load '{facts.name}': {obstacle}. Leave --engine out: one that can is "
                "chosen."
            )

    def model_fingerprint(self) -> str:
        return f"{self._computing} {model_fingerprint(locate(self._source))}"
