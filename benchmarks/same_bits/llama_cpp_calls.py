"""Which numbers of tokens in a call of llama.cpp's give the same tokens other bits: what ``same_bits`` is built on.

    python benchmarks/same_bits/llama_cpp_calls.py [--model gemma3-270m] [--flash-attention] [--fill 4] [--no-repacking]

Behind the same 64 tokens, in the same cells, the next n tokens are computed in one call of n tokens and in one of 96,
of which they are the first; their keys and values in all layers, and those of the 64, are compared byte by byte.
``--fill``: calls are filled up to a multiple of it, and to eight, with tokens of another sequence that no token sees.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary, load_library
from gristmill.engines.embedded.llama_cpp.runner import Arguments, DecodeCall
from gristmill.models.locate import locate

BEFORE, MOST, CELLS = 64, 96, 512
SEQUENCE, FILL = 0, 1


class Calls:
    def __init__(self, library: LlamaLibrary, path: Path, flash_attention: bool, repacking: bool) -> None:
        self._library = library
        no_devices = (ctypes.c_void_p * 1)()
        of_model = library.llama_model_default_params()
        of_model.n_gpu_layers, of_model.use_extra_bufts = 0, repacking
        of_model.devices = ctypes.addressof(no_devices)
        model = library.llama_model_load_from_file(os.fsencode(path), of_model)
        if not model:
            sys.exit(f"{library} cannot load '{path}': {library.log.reason()}")
        self._context = self._open(model, flash_attention)
        self._memory = library.llama_get_memory(self._context)
        self._arguments = Arguments(CELLS)
        vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
        chosen = random.Random(3)
        self._tokens = [chosen.randrange(100, min(vocabulary, 40_000)) for _ in range(BEFORE + MOST)]

    def _open(self, model: Any, flash_attention: bool) -> Any:
        params = self._library.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = CELLS
        params.n_seq_max, params.kv_unified = 2, True
        params.n_threads = params.n_threads_batch = 1
        params.flash_attn_type = int(flash_attention)
        return self._library.llama_init_from_model(model, params)

    def keys_and_values(self, tokens: int, fill: int, kept: int) -> bytes:
        """Of the first ``BEFORE`` tokens and the next ``kept``, of ``tokens`` in one call."""
        library = self._library
        library.llama_memory_clear(self._memory, False)
        self._decode(0, BEFORE, 0)
        self._decode(BEFORE, tokens, fill)
        library.llama_memory_seq_rm(self._memory, SEQUENCE, BEFORE + kept, -1)
        size = library.llama_state_seq_get_size_ext(self._context, SEQUENCE, 0)
        state = np.empty(size, np.uint8)
        library.llama_state_seq_get_data_ext(self._context, state.ctypes.data, size, SEQUENCE, 0)
        return state.tobytes()

    def _decode(self, start: int, count: int, fill: int) -> None:
        call = DecodeCall(
            np.array([*self._tokens[start : start + count], *[0] * fill], np.int64),
            np.array([*range(start, start + count), *range(fill)], np.int32),
            np.array([SEQUENCE] * count + [FILL] * fill, np.int32),
            np.zeros(count + fill, np.int8),
        )
        if code := self._library.llama_decode(self._context, self._arguments.of(call)):
            sys.exit(f"llama_decode failed with {code}")
        self._library.llama_memory_seq_rm(self._memory, FILL, -1, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--library", default="")
    parser.add_argument("--flash-attention", action="store_true")
    parser.add_argument("--fill", type=int, default=0)
    parser.add_argument("--no-repacking", action="store_true")
    parser.add_argument("--most", type=int, default=80, help="tokens in a call, up to 96")
    options = parser.parse_args()
    library = load_library(options.library)
    calls = Calls(library, locate(options.model).path, options.flash_attention, not options.no_repacking)
    same, others = [], []
    for tokens in range(1, options.most + 1):
        fill = max(-(-tokens // options.fill) * options.fill, 8) - tokens if options.fill else 0
        alike = calls.keys_and_values(tokens, fill, tokens) == calls.keys_and_values(MOST, 0, tokens)
        (same if alike else others).append(tokens)
    print(f"{library}, {options.model}. The same bits in calls of {same} tokens, others in calls of {others}.")


if __name__ == "__main__":
    main()
