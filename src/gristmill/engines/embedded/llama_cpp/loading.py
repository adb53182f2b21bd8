"""From a model's name to a runner that is ready: what fits where, loaded, or one clear sentence."""

from __future__ import annotations

import ctypes
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
from gristmill.engines.embedded.llama_cpp.embedder import EmbeddingSizes, LlamaEmbedder, set_to_embed, sizes_for
from gristmill.engines.embedded.llama_cpp.engine import LlamaCppOptions, locate_gguf
from gristmill.engines.embedded.llama_cpp.gguf_facts import GgufFacts, read_facts
from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary, load_library
from gristmill.engines.embedded.llama_cpp.offload import Needs, fewer_layers, layers_that_fit
from gristmill.engines.embedded.llama_cpp.projector import Projector
from gristmill.engines.embedded.llama_cpp.projector_file import projector_of
from gristmill.engines.embedded.llama_cpp.runner import MOST_SEQUENCES, LlamaRunner
from gristmill.engines.embedded.llama_cpp.vocabulary import LlamaVocabulary
from gristmill.engines.embedded.model_runner import LoadedModel, StepCosts
from gristmill.engines.embedded.processor import processor_digest
from gristmill.engines.embedded.scheduling.step_plan import DEFAULT_LIMITS
from gristmill.engines.embedded.worker.worker_exit import OUT_OF_MEMORY
from gristmill.engines.protocol import Computing
from gristmill.machine_memory import available_memory
from gristmill.models.gguf_header import read_header
from gristmill.models.ollama.rewritten import rewrite, rewriting_of
from gristmill.user_error import UserError

#: ``ggml_type`` of a choice of ``kv_type``, and the bytes that a value takes.
_KV_TYPES = {"f32": (0, 4.0), "f16": (1, 2.0), "q8_0": (8, 34 / 32)}
_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
#: Positions of one call whose logits are kept: as many as there are sequences, or llama.cpp aborts.
_MOST_OUTPUTS = MOST_SEQUENCES
#: Tokens that llama.cpp computes at a time: ``n_ubatch``, its default.
_MICROBATCH = 512
#: llama.cpp makes a cache of a multiple of it.
_CELLS_ROUNDED = 256
#: Cells for a model that keeps a state instead of keys: they cost nothing, and bound what runs at a time.
_CELLS_OF_STATE = 2**17
#: Of a model whose file has the half that reads pictures, too.
_BLIND = (
    "Images are refused: the half of Ollama's file that reads them is not rewritten. Name a projector (mmproj) with "
    "-O projector=, or use --engine ollama."
)
#: A list of devices that ends where it begins.
_NO_DEVICES = (ctypes.c_void_p * 1)()
_GIB = 2**30


class NotLoaded(Exception):
    """llama.cpp could not load the model, or make a context for it."""

    def __init__(self, reason: str, errors: tuple[str, ...]) -> None:
        """``errors``: all that it said."""
        super().__init__(reason or "it does not say why")
        self.out_of_memory = any(map(OUT_OF_MEMORY.search, errors))


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
    found = gguf_pooling(read_header(path).metadata)
    pooling = pooling_of(path, found, chosen)
    if pooling is not None:
        return _load_embedder(library, path, chosen, facts, pooling, found.causal)
    needs = needs_of(facts, chosen, cells)
    projector = projector_of(local, chosen.projector)
    if projector is not None:
        needs = needs._replace(step=needs.step + projector.stat().st_size)
    loaded, told = _load(library, path, chosen, needs, partial(_open_writer, options=chosen, cells=cells))
    vocabulary = LlamaVocabulary(library, loaded.model)
    recurrent = library.llama_model_is_recurrent(loaded.model) or library.llama_model_is_hybrid(loaded.model)
    notices: list[str] = []
    if projector is None and rewriting is not None and rewriting.pictures:
        notices.append(_BLIND)
    eyes = None if projector is None else _open_projector(library, loaded, projector, facts, chosen, notices)
    runner = LlamaRunner(
        library,
        loaded.context,
        vocabulary.size,
        _MOST_OUTPUTS,
        partial=not recurrent,
        rent=_cells_a_token(facts),
        window=library.llama_model_n_swa(loaded.model),
        computing=f"{', '.join(each.description for each in list_devices(library))} {processor_digest()}",
        pictures_non_causal=eyes is not None and eyes.non_causal,
    )
    return LoadedModel(
        runner,
        vocabulary,
        vocabulary.ends,
        library.llama_model_n_ctx_train(loaded.model),
        notices,
        local.defaults,
        told,
        eyes,
        StepCosts(_step_times_key(library, path, facts, chosen, loaded, cells), _cells_a_token(facts)),
    )


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
        f"{_threads(options)} threads, {loaded.gpu_layers} layers on GPUs, {cells} cells of {options.kv_type}, "
        f"flash attention {options.flash_attention}, {options.step_tokens} tokens a call"
    )


def _open_projector(
    library: LlamaLibrary, loaded: Loaded, file: Path, facts: GgufFacts, options: LlamaCppOptions, notices: list[str]
) -> Projector | None:
    """Where nobody has named it, one that cannot be used is worth a notice, and the model reads texts."""
    most = min(_MICROBATCH, options.step_tokens)
    try:
        return Projector(library, loaded.model, file, facts.width, _threads(options), loaded.gpu_layers > 0, most)
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
            f"The model '{path}' {_EMBEDS}, and does not say how it pools: say so with -O pooling=mean, cls or last; "
            "its card knows."
        )
    return found.pooling


def _load_embedder(
    library: LlamaLibrary, path: Path, options: LlamaCppOptions, facts: GgufFacts, pooling: Pooling, causal: bool
) -> LoadedEmbedder:
    sizes = sizes_for(facts.context_length, causal, options.step_tokens, cells_of(facts, options))
    needs = embedding_needs(facts, options, sizes, causal)
    opening = partial(_open_embedder, options=options, sizes=sizes, pooling=pooling)
    loaded, told = _load(library, path, options, needs, opening)
    runner = LlamaEmbedder(library, loaded.context, library.llama_model_n_embd_out(loaded.model), pooling, causal)
    vocabulary = LlamaVocabulary(library, loaded.model)
    notices = [f"The model embeds, and does not write; pooling={pooling}."]
    cuts = Cuts(any_size=options.matryoshka)
    return LoadedEmbedder(runner, vocabulary, sizes.input, cuts, True, notices, told)


def embedding_needs(facts: GgufFacts, options: LlamaCppOptions, sizes: EmbeddingSizes, causal: bool) -> Needs:
    """As ``needs_of``; llama.cpp keeps room for logits, which nobody asks for, of each token of a call."""
    logits = sizes.call * facts.vocabulary_size * 4 if causal else 0
    mask = sizes.cells * sizes.call * 4
    hidden = sizes.call * facts.width * 16 * 4
    kv_cache = int(sizes.cells * _bytes_a_token(facts, options)) if causal else 0
    return Needs(facts.layers + 1, facts.weight_bytes, kv_cache, logits + mask + hidden)


def cells_of(facts: GgufFacts, options: LlamaCppOptions) -> int:
    """Tokens that the KV cache holds. Raises UserError where they are too few to begin with."""
    if not facts.kv_values:
        return _CELLS_OF_STATE
    most = MOST_SEQUENCES * facts.context_length
    cells = min(int(options.kv_cache_gb * _GIB / _bytes_a_token(facts, options)), most)
    cells = cells // _CELLS_ROUNDED * _CELLS_ROUNDED
    if cells <= 0:
        needed = _bytes_a_token(facts, options) * _CELLS_ROUNDED / _GIB
        raise UserError(f"The KV cache is too small for this model: choose at least {needed:.2g} with kv_cache_gb.")
    return cells


def needs_of(facts: GgufFacts, options: LlamaCppOptions, cells: int) -> Needs:
    """What the files say, and of a step what takes most: logits, the mask of attention, and hidden states (of 16 values
    for each of their width, which is more than any layer of common models needs)."""
    logits = _MOST_OUTPUTS * facts.vocabulary_size * 4
    mask = cells * _MICROBATCH * 4
    hidden = _MICROBATCH * facts.width * 16 * 4
    kv_cache = int(cells * _bytes_a_token(facts, options))
    return Needs(facts.layers + 1, facts.weight_bytes, kv_cache, logits + mask + hidden)


def _bytes_a_token(facts: GgufFacts, options: LlamaCppOptions) -> float:
    return facts.kv_values * _KV_TYPES[options.kv_type][1]


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
            model = _open_model(library, path, layers)
            try:
                _check_kind(library, model, path)
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


def check_memory(path: Path, needs: Needs, gpu_layers: int, available: int | None) -> None:
    """Raises UserError for what this machine cannot hold: llama.cpp would map the file, and the machine would stand
    still or end the process."""
    needed = needs.on_host(gpu_layers)
    if available is None or needed <= available:
        return
    beside = f" beside {gpu_layers} layers on the GPU" if gpu_layers else ""
    raise UserError(
        f"The model '{path}' needs {_gib(needed)}{beside} (weights {_gib(needs.weights)} in all, KV cache "
        f"{_gib(needs.kv_cache)}), and this machine has {_gib(available)} free: choose a smaller model or "
        "quantisation, or less with kv_cache_gb."
    )


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"


def _open_model(library: LlamaLibrary, path: Path, layers: int) -> Any:
    params = library.llama_model_default_params()
    params.n_gpu_layers = layers
    if not layers:
        # Or large products would be computed on a GPU all the same, with the weights brought there each time.
        params.devices = ctypes.addressof(_NO_DEVICES)
    library.log.forget()
    model = library.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise NotLoaded(library.log.reason(), library.log.errors)
    return model


def _check_kind(library: LlamaLibrary, model: Any, path: Path) -> None:
    """Raises UserError for a model that does not go on with a text token by token."""
    kind = ""
    if library.llama_model_is_diffusion(model):
        kind = "writes by diffusion, not token by token"
    elif library.llama_model_has_encoder(model):
        kind = "has an encoder, as models for translation have" if library.llama_model_has_decoder(model) else _EMBEDS
    if kind:
        raise UserError(f"The model '{path}' {kind}: the llama_cpp engine needs one that generates text.")


_EMBEDS = "makes embeddings and no text"


def _open_writer(library: LlamaLibrary, model: Any, options: LlamaCppOptions, cells: int) -> Any:
    params = _context_params(library, options)
    params.n_ctx = cells
    params.n_batch = options.step_tokens
    params.n_ubatch = min(_MICROBATCH, options.step_tokens)
    params.n_outputs_max = _MOST_OUTPUTS
    # Several positions of a sequence are asked for where labels are scored.
    params.n_outputs_max_per_seq = _MOST_OUTPUTS
    context = _open_context(library, model, params)
    if not library.llama_get_memory(context):
        library.llama_free(context)
        raise UserError(f"The model {_EMBEDS}: say how it pools with -O pooling=mean, cls or last.")
    return context


def _open_embedder(
    library: LlamaLibrary, model: Any, options: LlamaCppOptions, sizes: EmbeddingSizes, pooling: Pooling
) -> Any:
    params = _context_params(library, options)
    set_to_embed(params, sizes, pooling)
    return _open_context(library, model, params)


def _threads(options: LlamaCppOptions) -> int:
    return options.threads or len(os.sched_getaffinity(0))


def _context_params(library: LlamaLibrary, options: LlamaCppOptions) -> Any:
    params = library.llama_context_default_params()
    params.n_seq_max = MOST_SEQUENCES
    params.n_threads = params.n_threads_batch = _threads(options)
    params.flash_attn_type = _FLASH_ATTENTION[options.flash_attention]
    params.type_k = params.type_v = _KV_TYPES[options.kv_type][0]
    # One cache for all sequences, or a fork would copy; and every cell kept that a window has passed, or it would
    # find holes.
    params.kv_unified = True
    params.swa_full = True
    return params


def _open_context(library: LlamaLibrary, model: Any, params: Any) -> Any:
    library.log.forget()
    context = library.llama_init_from_model(model, params)
    if not context:
        raise NotLoaded(library.log.reason(), library.log.errors)
    return context
