"""What a model needs: cells of a KV cache, memory, and whether the machine has it. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gristmill.engines.embedded.llama_cpp.embedder import EmbeddingSizes
from gristmill.engines.embedded.llama_cpp.engine import LlamaCppOptions
from gristmill.engines.embedded.llama_cpp.gguf_facts import GgufFacts
from gristmill.engines.embedded.llama_cpp.runner import MOST_SEQUENCES
from gristmill.engines.embedded.llama_cpp.slot_runner import SLOT_CALL
from gristmill.user_error import UserError

#: ``ggml_type`` of a choice of ``kv_type``, and the bytes that a value takes.
KV_TYPES = {"f32": (0, 4.0), "f16": (1, 2.0), "q8_0": (8, 34 / 32)}
#: Positions of one call whose logits are kept: as many as there are sequences, or llama.cpp aborts.
MOST_OUTPUTS = MOST_SEQUENCES
#: Tokens that llama.cpp computes at a time: ``n_ubatch``, its default.
MICROBATCH = 512
#: llama.cpp makes a cache of a multiple of it.
_CELLS_ROUNDED = 256
#: Cells for a model that keeps a state instead of keys: they cost nothing, and bound what runs at a time.
_CELLS_OF_STATE = 2**17
_GIB = 2**30


class Needs(NamedTuple):
    """Bytes: weights and KV cache of all layers together, and what a step needs besides on everything that computes.
    The output counts as one of the ``layers``."""

    layers: int
    weights: int
    kv_cache: int
    step: int

    def on_host(self, gpu_layers: int) -> int:
        """Beside so many layers on GPUs. Layers are taken to be alike, which they nearly are."""
        share = 1 - min(gpu_layers, self.layers) / self.layers
        return int((self.weights + self.kv_cache) * share) + self.step


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


def slot_cells(facts: GgufFacts, cells: int) -> int:
    """How many of the ``cells`` a slot gets: room for the longest sequence, and half of them at most."""
    wanted = -(-facts.context_length // _CELLS_ROUNDED) * _CELLS_ROUNDED + _CELLS_ROUNDED
    return min(wanted, cells // 2 // _CELLS_ROUNDED * _CELLS_ROUNDED)


def slot_step(facts: GgufFacts, cells: int) -> int:
    """Bytes that a step on a slot needs: logits, and each head's products of a call's tokens with all cells, where a
    head is 64 values or more."""
    return SLOT_CALL * 4 * (facts.vocabulary_size + cells * (facts.width // 64 + 1) + facts.width * 16)


def needs_of(facts: GgufFacts, options: LlamaCppOptions, cells: int) -> Needs:
    """What the files say, and of a step what takes most: logits, the mask of attention, and hidden states (of 16 values
    for each of their width, which is more than any layer of common models needs)."""
    logits = MOST_OUTPUTS * facts.vocabulary_size * 4
    mask = cells * MICROBATCH * 4
    hidden = MICROBATCH * facts.width * 16 * 4
    kv_cache = int(cells * _bytes_a_token(facts, options))
    return Needs(facts.layers + 1, facts.weight_bytes, kv_cache, logits + mask + hidden)


def embedding_needs(facts: GgufFacts, options: LlamaCppOptions, sizes: EmbeddingSizes, causal: bool) -> Needs:
    """As ``needs_of``; llama.cpp keeps room for logits, which nobody asks for, of each token of a call."""
    logits = sizes.call * facts.vocabulary_size * 4 if causal else 0
    mask = sizes.cells * sizes.call * 4
    hidden = sizes.call * facts.width * 16 * 4
    kv_cache = int(sizes.cells * _bytes_a_token(facts, options)) if causal else 0
    return Needs(facts.layers + 1, facts.weight_bytes, kv_cache, logits + mask + hidden)


def _bytes_a_token(facts: GgufFacts, options: LlamaCppOptions) -> float:
    return facts.kv_values * KV_TYPES[options.kv_type][1]


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
