"""The engines by name, made from their options. Each is imported only when asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gristmill.engines.choice import AUTOMATIC, choose_for
from gristmill.engines.protocol import Engine
from gristmill.models.catalog import DEFAULT_MODEL
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from gristmill.engines.embedded.prompt import PromptTokens
    from gristmill.engines.embedded.tokenizer import SpecialTextEncoder
    from gristmill.models.locate import LocalModel


class EngineSettings(NamedTuple):
    """What the user chose: an engine, or "auto"; a model name or path, an address, and the engine's own ``key=value``
    options.

    ``row_tokens``: about what the longest row needs, prompt and answer together, where that is known beforehand; 0
    where it is not.
    """

    engine: str
    model: str | None = None
    url: str | None = None
    options: dict[str, str] = {}  # noqa: RUF012 - never written to
    row_tokens: int = 0


def _simulated(settings: EngineSettings) -> Engine:
    from gristmill.engines.simulated import SimulatedEngine, SimulatedOptions

    return SimulatedEngine(SimulatedOptions.parse(settings.options), model=settings.model or "simulated")


def _llama_cpp(settings: EngineSettings) -> Engine:
    from gristmill.engines.embedded.llama_cpp.engine import LlamaCppEngine, LlamaCppOptions

    return LlamaCppEngine(LlamaCppOptions.parse(settings.options), model=settings.model)


def _openvino(settings: EngineSettings) -> Engine:
    from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions

    return OpenVinoEngine(OpenVinoOptions.parse(settings.options), model=settings.model)


def _ollama(settings: EngineSettings) -> Engine:
    from gristmill.engines.ollama.engine import OllamaEngine, OllamaOptions

    options = OllamaOptions.parse(settings.options)
    return OllamaEngine(options, url=settings.url, model=settings.model, row_tokens=settings.row_tokens)


def _openai_compatible(settings: EngineSettings) -> Engine:
    from gristmill.engines.openai_compatible.engine import OpenAICompatibleEngine, OpenAICompatibleOptions

    options = OpenAICompatibleOptions.parse(settings.options)
    return OpenAICompatibleEngine(options, url=settings.url, model=settings.model)


def _vllm(settings: EngineSettings) -> Engine:
    from gristmill.engines.vllm.engine import VllmEngine, VllmOptions

    return VllmEngine(VllmOptions.parse(settings.options), model=settings.model)


def _ray(settings: EngineSettings) -> Engine:
    from gristmill.engines.protocol import passes_through
    from gristmill.engines.ray.engine import PassingRayEngine, RayEngine
    from gristmill.engines.ray.options import RayOptions, ReplicaSettings

    pool, options = RayOptions.split(settings.options)
    # What is wrong with a replica's settings is told here, and not by every replica.
    like = create_engine(
        EngineSettings(pool.replica_engine, settings.model, settings.url, options, settings.row_tokens)
    )
    # Only Ollama's engine depends on it, and replicas of other settings are others, which load the model again.
    row_tokens = settings.row_tokens if pool.replica_engine == "ollama" else 0
    replica = ReplicaSettings(
        pool.replica_engine, settings.model, settings.url, options, pool.cpus, pool.gpus, row_tokens
    )
    return (PassingRayEngine if passes_through(like) else RayEngine)(pool, replica, like)


_FACTORIES: dict[str, Callable[[EngineSettings], Engine]] = {
    "llama_cpp": _llama_cpp,
    "ollama": _ollama,
    "openai_compatible": _openai_compatible,
    "openvino": _openvino,
    "ray": _ray,
    "simulated": _simulated,
    "vllm": _vllm,
}

ENGINES = (AUTOMATIC, *_FACTORIES)
#: Told by name: their classes need packages that a server of another engine does without.
EMBEDDED = ("llama_cpp", "openvino")


def with_engine(settings: EngineSettings) -> tuple[EngineSettings, str | None]:
    """``settings`` with an engine where they leave it open, and then a sentence that says which and why. Raises
    UserError where there is none for the model."""
    if settings.engine != AUTOMATIC:
        return settings, None
    if settings.url is not None:
        raise UserError(f"Say which engine is at {settings.url}: --engine ollama or --engine openai_compatible.")
    if not settings.options.keys().isdisjoint(("library", "projector")):
        # Only one of them has another library to choose from, and eyes.
        return settings._replace(engine="llama_cpp"), None
    choice = choose_for(settings.model)
    return settings._replace(engine=choice.engine), choice.sentence(settings.model or DEFAULT_MODEL)


def create_engine(settings: EngineSettings) -> Engine:
    """Raises UserError."""
    settings, _ = with_engine(settings)
    factory = _FACTORIES.get(settings.engine)
    if factory is None:
        raise UserError(f"There is no engine '{settings.engine}'. Choose one of: {', '.join(ENGINES)}.")
    return factory(settings)


def create_measured_engine(settings: EngineSettings) -> Engine:
    """The same, with what there is to measure of it besides its answers; for ``gristmill bench``."""
    if settings.engine != "ollama":
        return create_engine(settings)
    from gristmill.engines.ollama.engine import OllamaOptions
    from gristmill.engines.ollama.measured import MeasuredOllamaEngine

    options = OllamaOptions.parse(settings.options)
    return MeasuredOllamaEngine(options, url=settings.url, model=settings.model, row_tokens=settings.row_tokens)


def open_tokenizer(name: str) -> PromptTokens:
    """Counts the tokens of prompts exactly, without an engine. ``name`` is a ``tokenizer.json``, or a model of the
    embedded engine. Raises UserError."""
    from gristmill.engines.embedded.prompt import PromptTokens
    from gristmill.engines.embedded.tokenizer import SegmentEncoder, TokenizerFile

    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise UserError(f"There is no tokenizer file {path}.")
        return PromptTokens(SegmentEncoder(TokenizerFile(path)))
    from gristmill.models.locate import locate

    model = locate(name)
    return PromptTokens(SegmentEncoder(_vocabulary_of(model)), defaults=model.defaults)


def _vocabulary_of(model: LocalModel) -> SpecialTextEncoder:
    if model.kind == "gguf" and importlib.util.find_spec("xllamacpp") is not None:
        # From the file as it is, where OpenVINO would have to convert the model first.
        from gristmill.engines.embedded.llama_cpp import vocabulary as llama_cpp
        from gristmill.models.ollama.rewritten import vocabulary_file

        with vocabulary_file(model.path) as path:
            return llama_cpp.open_vocabulary(path)
    from gristmill.engines.embedded.openvino.prepare import prepare
    from gristmill.engines.embedded.openvino.vocabulary import open_vocabulary

    return open_vocabulary(model, prepare(model, "f16").folder)
