"""From a model's name to a runner that is ready: what fits where, loaded, or one clear sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gristmill.engines.embedded.embeddings.embedding_runner import Cuts, LoadedEmbedder, Pooling
from gristmill.engines.embedded.embeddings.gguf_pooling import GgufPooling, gguf_pooling
from gristmill.engines.embedded.llama_cpp.computing import Offload, computing, this_hardware, used_instructions
from gristmill.engines.embedded.llama_cpp.devices import list_devices, offload_targets
from gristmill.engines.embedded.llama_cpp.embedder import LlamaEmbedder, sizes_for
from gristmill.engines.embedded.llama_cpp.engine import LlamaCppOptions, locate_gguf
from gristmill.engines.embedded.llama_cpp.gguf_facts import GgufFacts, read_facts
from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary, load_library
from gristmill.engines.embedded.llama_cpp.needs import (
    MICROBATCH,
    MOST_OUTPUTS,
    Needs,
    cells_of,
    check_memory,
    embedding_needs,
    needs_of,
    slot_cells,
    slot_step,
)
from gristmill.engines.embedded.llama_cpp.offload import fewer_layers, layers_that_fit
from gristmill.engines.embedded.llama_cpp.opening import (
    EMBEDS,
    NotLoaded,
    check_kind,
    open_embedder,
    open_model,
    open_scorer,
    open_writer,
    threads_of,
)
from gristmill.engines.embedded.llama_cpp.projector import Projector
from gristmill.engines.embedded.llama_cpp.projector_file import projector_of
from gristmill.engines.embedded.llama_cpp.runner import LlamaRunner
from gristmill.engines.embedded.llama_cpp.slot_runner import SlotRunner
from gristmill.engines.embedded.llama_cpp.vocabulary import LlamaVocabulary
from gristmill.engines.embedded.model_runner import LoadedModel, StepCosts
from gristmill.engines.embedded.processor import processor_digest
from gristmill.engines.embedded.scheduling.step_plan import DEFAULT_LIMITS
from gristmill.engines.protocol import Computing
from gristmill.machine_memory import available_memory
from gristmill.models.gguf_header import read_header
from gristmill.models.ollama.rewritten import rewrite, rewriting_of
from gristmill.user_error import UserError

#: Of a model whose file has the half that reads pictures, too.
_BLIND = (
    "Images are refused: the half of Ollama's file that reads them is not rewritten. Name a projector (mmproj) with "
    "-O projector=, or use --engine ollama."
)

_ON_GPU = (
    "same_bits has been shown on CPUs only: where layers are on a GPU, last digits of label scores may still depend on "
    "where a row parts from the one before. -O gpu_layers=0 leaves all of them on the CPU."
)


class Loaded(NamedTuple):
    """llama.cpp's model and context, and how many layers are on GPUs."""

    model: Any
    context: Any
    gpu_layers: int


#: Makes a context of a loaded model. Raises NotLoaded.
OpenContext = Callable[[LlamaLibrary, Any], Any]


def load_model(source: str, options: dict[str, Any]) -> LoadedModel | LoadedEmbedder:
    """The ``LoadModel`` of this engine."""
    asked = msgspec.convert(options, LlamaCppOptions)
    chosen = msgspec.structs.replace(asked, step_tokens=asked.step_tokens or DEFAULT_LIMITS.step_tokens)
    local = locate_gguf(source)
    rewriting = rewriting_of(local.path, local.name)
    path = local.path if rewriting is None else rewrite(rewriting)
    library = load_library(chosen.library, echo=True)
    facts = read_facts(path)
    cells = cells_of(facts, chosen)
    slot = slot_cells(facts, cells) if chosen.same_bits else 0
    found = gguf_pooling(read_header(path).metadata)
    pooling = pooling_of(path, found, chosen)
    if pooling is not None:
        return _load_embedder(library, path, chosen, facts, pooling, found.causal)
    needs = needs_of(facts, chosen, cells)
    if slot:
        needs = needs._replace(step=needs.step + slot_step(facts, slot))
    projector = projector_of(local, chosen.projector)
    if projector is not None:
        needs = needs._replace(step=needs.step + projector.stat().st_size)
    loaded, told = _load(library, path, chosen, needs, partial(open_writer, options=chosen, cells=cells - slot))
    vocabulary = LlamaVocabulary(library, loaded.model)
    recurrent = library.llama_model_is_recurrent(loaded.model) or library.llama_model_is_hybrid(loaded.model)
    notices: list[str] = []
    if chosen.same_bits and loaded.gpu_layers:
        notices.append(_ON_GPU)
    if projector is None and rewriting is not None and rewriting.pictures:
        notices.append(_BLIND)
    eyes = None if projector is None else _open_projector(library, loaded, projector, facts, chosen, notices)
    runner = LlamaRunner(
        library,
        loaded.context,
        vocabulary.size,
        MOST_OUTPUTS,
        partial=not recurrent,
        rent=_cells_a_token(facts),
        window=library.llama_model_n_swa(loaded.model),
        computing=f"{', '.join(each.description for each in list_devices(library))} {processor_digest()}",
        pictures_non_causal=eyes is not None and eyes.non_causal,
    )
    scorer = _open_scorer(library, loaded, path, chosen, slot, vocabulary.size) if chosen.same_bits else None
    told = msgspec.structs.replace(told, build=runner.build, threads=chosen.threads or len(os.sched_getaffinity(0)))
    return LoadedModel(
        runner,
        vocabulary,
        vocabulary.ends,
        library.llama_model_n_ctx_train(loaded.model),
        notices,
        local.defaults,
        told,
        eyes,
        StepCosts(_step_times_key(library, path, facts, chosen, loaded, cells - slot), _cells_a_token(facts)),
        scorer,
    )


def _open_scorer(
    library: LlamaLibrary, loaded: Loaded, path: Path, options: LlamaCppOptions, cells: int, vocabulary_size: int
) -> SlotRunner:
    if library.llama_model_is_recurrent(loaded.model) or library.llama_model_is_hybrid(loaded.model):
        raise UserError(
            f"The model '{path}' is recurrent, and of such models label scores are not kept the same to the bit: leave "
            "out -O same_bits=."
        )
    if cells <= 0:
        raise UserError("The KV cache is too small for two, as same_bits needs: choose more with kv_cache_gb.")
    try:
        return SlotRunner(library, open_scorer(library, loaded.model, options, cells), vocabulary_size)
    except NotLoaded as error:
        raise UserError(f"{library} has no room for same_bits' own KV cache of '{path}': {error}.") from None


def _cells_a_token(facts: GgufFacts) -> int:
    """How many cells' attention takes as long as the rest of a token: see ``ForkedMemory``."""
    return 6 * facts.width


def _step_times_key(
    library: LlamaLibrary, path: Path, facts: GgufFacts, options: LlamaCppOptions, loaded: Loaded, cells: int
) -> str:
    devices = ", ".join(each.description for each in list_devices(library))
    status = path.stat()
    return (
        f"{path.name} {status.st_size} {status.st_mtime_ns} {facts}; {library} on {devices} {processor_digest()}; "
        f"{threads_of(options)} threads, {loaded.gpu_layers} layers on GPUs, {cells} cells of {options.kv_type}, "
        f"flash attention {options.asked_attention}, {options.step_tokens} tokens a call"
    )


def _open_projector(
    library: LlamaLibrary, loaded: Loaded, file: Path, facts: GgufFacts, options: LlamaCppOptions, notices: list[str]
) -> Projector | None:
    """Where nobody has named it, one that cannot be used is worth a notice, and the model reads texts."""
    most = min(MICROBATCH, options.step_tokens)
    try:
        return Projector(library, loaded.model, file, facts.width, threads_of(options), loaded.gpu_layers > 0, most)
    except UserError as error:
        if options.projector:
            raise
        notices.append(f"Images are refused: {error}")
        return None


def pooling_of(path: Path, found: GgufPooling, options: LlamaCppOptions) -> Pooling | None:
    """How the model is to embed; None: it writes. Raises UserError where that is not known."""
    if options.pooling != "model":
        return options.pooling
    if found.ranks:
        raise UserError(
            f"The model '{path}' ranks texts, which the llama_cpp engine does not: serve it with llama.cpp's server "
            "(--reranking) and use --engine openai_compatible."
        )
    if found.pooling is None and not found.causal:
        raise UserError(
            f"The model '{path}' {EMBEDS}, and does not say how it pools: say so with -O pooling=mean, cls or last; "
            "its card knows."
        )
    return found.pooling


def _load_embedder(
    library: LlamaLibrary, path: Path, options: LlamaCppOptions, facts: GgufFacts, pooling: Pooling, causal: bool
) -> LoadedEmbedder:
    sizes = sizes_for(facts.context_length, causal, options.step_tokens, cells_of(facts, options))
    needs = embedding_needs(facts, options, sizes, causal)
    opening = partial(open_embedder, options=options, sizes=sizes, pooling=pooling)
    loaded, told = _load(library, path, options, needs, opening)
    runner = LlamaEmbedder(library, loaded.context, library.llama_model_n_embd_out(loaded.model), pooling, causal)
    vocabulary = LlamaVocabulary(library, loaded.model)
    notices = [f"The model embeds, and does not write; pooling={pooling}."]
    cuts = Cuts(any_size=options.matryoshka)
    return LoadedEmbedder(runner, vocabulary, sizes.input, cuts, True, notices, told)


def _load(
    library: LlamaLibrary, path: Path, options: LlamaCppOptions, needs: Needs, open_context: OpenContext
) -> tuple[Loaded, Computing]:
    """With as many layers on GPUs as fit, and what computes. Raises UserError."""
    devices = list_devices(library)
    targets = offload_targets(devices)
    layers = layers_that_fit(needs, targets) if options.gpu_layers is None else min(options.gpu_layers, needs.layers)
    loaded = _place(library, path, options, needs, open_context, layers if targets else 0)
    offload = Offload(loaded.gpu_layers, needs.layers)
    used = used_instructions(library.llama_print_system_info().decode("utf-8", "replace"))
    return loaded, computing(devices, offload, used, this_hardware(), str(library))


def _place(
    library: LlamaLibrary, path: Path, options: LlamaCppOptions, needs: Needs, open_context: OpenContext, layers: int
) -> Loaded:
    """With ``layers`` on GPUs, or fewer where a driver had less room than it said. Raises UserError."""
    while True:
        check_memory(path, needs, layers, available_memory())
        try:
            model = open_model(library, path, layers)
            try:
                check_kind(library, model, path)
                return Loaded(model, open_context(library, model), layers)
            except BaseException:
                library.llama_model_free(model)
                raise
        except NotLoaded as error:
            if not error.out_of_memory or not layers:
                raise UserError(f"{library} cannot load '{path}': {error}.") from None
            if options.gpu_layers is not None:
                raise UserError(
                    f"{layers} layers of '{path}' do not fit on the GPU ({error}): choose fewer with gpu_layers, less "
                    "with kv_cache_gb, or leave gpu_layers out."
                ) from None
            layers = fewer_layers(layers)
