"""A model file opened by llama.cpp: the model, and a context of it that writes or embeds."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from gristmill.engines.embedded.embeddings.embedding_runner import Pooling
from gristmill.engines.embedded.llama_cpp.embedder import EmbeddingSizes, set_to_embed
from gristmill.engines.embedded.llama_cpp.engine import LlamaCppOptions
from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary
from gristmill.engines.embedded.llama_cpp.needs import KV_TYPES, MICROBATCH, MOST_OUTPUTS
from gristmill.engines.embedded.llama_cpp.runner import MOST_SEQUENCES
from gristmill.engines.embedded.llama_cpp.slot_runner import SLOT_CALL, SLOT_SEQUENCES
from gristmill.engines.process_exit import OUT_OF_MEMORY
from gristmill.user_error import UserError

#: What is said of a model that does not write.
EMBEDS = "makes embeddings and no text"
_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
#: A list of devices that ends where it begins.
_NO_DEVICES = (ctypes.c_void_p * 1)()


class NotLoaded(Exception):
    """llama.cpp could not load the model, or make a context for it."""

    def __init__(self, reason: str, errors: tuple[str, ...]) -> None:
        """``errors``: all that it said."""
        super().__init__(reason or "it does not say why")
        self.out_of_memory = any(map(OUT_OF_MEMORY.search, errors))


def open_model(library: LlamaLibrary, path: Path, layers: int) -> Any:
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


def check_kind(library: LlamaLibrary, model: Any, path: Path) -> None:
    """Raises UserError for a model that does not go on with a text token by token."""
    kind = ""
    if library.llama_model_is_diffusion(model):
        kind = "writes by diffusion, not token by token"
    elif library.llama_model_has_encoder(model):
        kind = "has an encoder, as models for translation have" if library.llama_model_has_decoder(model) else EMBEDS
    if kind:
        raise UserError(f"The model '{path}' {kind}: the llama_cpp engine needs one that generates text.")


def open_writer(library: LlamaLibrary, model: Any, options: LlamaCppOptions, cells: int) -> Any:
    params = _context_params(library, options)
    params.n_ctx = cells
    params.n_batch = options.step_tokens
    params.n_ubatch = min(MICROBATCH, options.step_tokens)
    params.n_outputs_max = MOST_OUTPUTS
    # Several positions of a sequence are asked for where labels are scored.
    params.n_outputs_max_per_seq = MOST_OUTPUTS
    context = _open_context(library, model, params)
    if not library.llama_get_memory(context):
        library.llama_free(context)
        raise UserError(f"The model {EMBEDS}: say how it pools with -O pooling=mean, cls or last.")
    return context


def open_scorer(library: LlamaLibrary, model: Any, options: LlamaCppOptions, cells: int) -> Any:
    """For a ``SlotRunner``."""
    params = _context_params(library, options)
    params.n_seq_max = SLOT_SEQUENCES
    params.n_ctx = cells
    params.n_batch = params.n_ubatch = SLOT_CALL
    params.n_outputs_max = params.n_outputs_max_per_seq = SLOT_SEQUENCES
    # Of an f16 cache, flash attention has two kinds of code, and which depends on the number of tokens.
    params.flash_attn_type = _FLASH_ATTENTION["on" if options.kv_type == "q8_0" else "off"]
    return _open_context(library, model, params)


def open_embedder(
    library: LlamaLibrary, model: Any, options: LlamaCppOptions, sizes: EmbeddingSizes, pooling: Pooling
) -> Any:
    params = _context_params(library, options)
    set_to_embed(params, sizes, pooling)
    return _open_context(library, model, params)


def threads_of(options: LlamaCppOptions) -> int:
    return options.threads or len(os.sched_getaffinity(0))


def _context_params(library: LlamaLibrary, options: LlamaCppOptions) -> Any:
    params = library.llama_context_default_params()
    params.n_seq_max = MOST_SEQUENCES
    params.n_threads = params.n_threads_batch = threads_of(options)
    params.flash_attn_type = _FLASH_ATTENTION[options.asked_attention]
    params.type_k = params.type_v = KV_TYPES[options.kv_type][0]
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
