"""The model as one function of a step's tokens over llama.cpp's unified KV cache."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.kv.forked_memory import Forget, Fork, ForkedMemory
from gristmill.engines.embedded.llama_cpp.kv_state import KvState
from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary
from gristmill.engines.embedded.llama_cpp.structs import LlamaBatch
from gristmill.engines.embedded.model_runner import Span
from gristmill.engines.embedded.pictures.picture import picture_parts, vectors_of
from gristmill.engines.embedded.prefix_files.prefix_file import Slice
from gristmill.engines.embedded.scheduling.out_of_room import OutOfRoom
from gristmill.engines.embedded.scheduling.step_abort import StepAbort, StepAborted

#: Sequence ids that a context can tell apart (``LLAMA_MAX_SEQ``).
MOST_SEQUENCES = 256
#: Tokens whose KV state is saved together.
_SLICE_TOKENS = 256
#: What ``llama_decode`` returns.
_COMPUTED, _NO_ROOM, _ABORTED, _NO_MEMORY = 0, 1, 2, -2


class StepFailed(Exception):
    """llama.cpp has not computed the step; the message says why, as far as it does."""


class DecodeCall(NamedTuple):
    """What goes into one ``llama_decode``: tokens with positions, sequences and whether logits are wanted, each of
    shape (tokens,). Those of a picture are all there is in a call."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int32]
    sequences: NDArray[np.int32]
    wanted: NDArray[np.int8]


class LlamaRunner:
    """Holds a context of a loaded model. ``forward`` is not reentrant.

    A sequence is an id, and its keys and values lie in cells of one cache for all, each of which knows the sequences it
    belongs to. So a fork of a prefix costs nothing but that knowledge.
    """

    def __init__(
        self,
        library: LlamaLibrary,
        context: Any,
        vocabulary_size: int,
        most_outputs: int,
        partial: bool = True,
        rent: int = 4096,
        window: int = 0,
        computing: str = "",
        pictures_non_causal: bool = False,
    ) -> None:
        """``most_outputs``: the context's ``n_outputs_max``; ``partial`` and ``rent``: see ``ForkedMemory``.
        ``window``: tokens that a layer attends to, 0 where all do to all. ``computing``: the devices.
        ``pictures_non_causal``: all vectors of a picture part see each other."""
        self._pictures_non_causal = pictures_non_causal
        self._library = library
        self._context = context
        self._memory = library.llama_get_memory(context)
        self._vocabulary_size = vocabulary_size
        # Not what was asked for: it is no more than the cache has cells.
        self._most_tokens: int = library.llama_n_batch(context)
        self._most_outputs = most_outputs
        self._partial = partial
        self._rent = rent
        self._window = window
        self._cells: int = library.llama_n_ctx(context)
        # The last id is for what is saved and restored.
        self._sequences: int = library.llama_n_seq_max(context) - 1
        self._state = KvState(library, context, self._sequences)
        # Of layers with a window llama.cpp saves no more than that of a sequence, though it has all.
        self.slice_tokens = min(_SLICE_TOKENS, window or _SLICE_TOKENS)
        self.build = f"llama.cpp {library.version} on {computing}"
        self.kv_format = self.build if partial else None
        self._arguments = Arguments(self._most_tokens)
        self._flag = AbortFlag()
        library.llama_set_abort_callback(context, self._flag.function, self._flag.data)

    def new_memory(self) -> ForkedMemory:
        self._library.llama_memory_clear(self._memory, False)
        return ForkedMemory(self._cells, self._sequences, self._partial, self._rent, self._window)

    def make_moves(self, moves: list[Fork | Forget]) -> None:
        for move in moves:
            if isinstance(move, Fork):
                self._library.llama_memory_seq_cp(self._memory, move.source, move.target, 0, move.tokens)
            elif not self._library.llama_memory_seq_rm(self._memory, move.sequence, move.start, -1):
                raise StepFailed(f"llama.cpp cannot end sequence {move.sequence} before its token {move.start}")

    def export_kv(self, place: int, begin: int, end: int) -> memoryview:
        return self._state.save(place, begin, end)

    def import_kv(self, place: int, piece: Slice, begin: int, end: int) -> None:
        self._state.restore(piece.data, (piece.begin, piece.end), place, begin, end)

    def forward(self, spans: list[Span[int]], abort: StepAbort | None = None) -> NDArray[np.float32]:
        """Compute the spans, writing their keys and values. Logits of the wanted positions, shape (samples,
        vocabulary), valid until the next call. Raises StepAborted, OutOfRoom or StepFailed; then no span's tokens are
        in the cache."""
        abort = abort or StepAbort()
        calls = cut(spans, self._most_tokens, self._most_outputs)
        abort.begin(self._flag.clear, self._flag.set)
        try:
            computed = [self._decode(call, len(calls) > 1) for call in calls]
        except BaseException:
            self._forget(spans)
            raise
        finally:
            abort.end()
        return computed[0] if len(computed) == 1 else np.concatenate(computed)

    def _decode(self, call: DecodeCall, copy: bool) -> NDArray[np.float32]:
        library = self._library
        library.log.forget()
        if call.tokens[0] < 0:
            code = self._decode_picture(call)
        else:
            code = library.llama_decode(self._context, self._arguments.of(call))
        if code != _COMPUTED:
            raise failure_of(code, library.log.reason())
        outputs = int(call.wanted.sum())
        if not outputs:
            return np.zeros((0, self._vocabulary_size), np.float32)
        found = library.llama_get_logits(self._context)
        if not found:
            raise StepFailed("llama.cpp has computed no logits")
        logits = np.ctypeslib.as_array(found, (outputs, self._vocabulary_size))
        if np.isnan(logits[:, 0]).any():
            # Of one infinity come others: every token of such a position has none.
            raise StepFailed("the model's logits are not numbers (NaN)")
        return logits.copy() if copy else logits

    def _decode_picture(self, call: DecodeCall) -> int:
        vectors = vectors_of(call.tokens.tolist())
        if self._pictures_non_causal:
            self._library.llama_set_causal_attn(self._context, False)
        try:
            code: int = self._library.llama_decode(self._context, self._arguments.of(call, vectors))
        finally:
            if self._pictures_non_causal:
                self._library.llama_set_causal_attn(self._context, True)
        return code

    def _forget(self, spans: list[Span[int]]) -> None:
        """llama.cpp leaves in the cache what it has computed of a step that it did not finish."""
        for span in spans:
            self._library.llama_memory_seq_rm(self._memory, span.place, span.past, -1)


def cut(spans: list[Span[int]], most_tokens: int, most_outputs: int) -> list[DecodeCall]:
    """The step in as few calls as may hold it, in order. Pure."""
    tokens = np.concatenate([np.asarray(span.tokens, np.int64) for span in spans])
    positions = np.concatenate([np.arange(span.past, span.past + len(span.tokens), dtype=np.int32) for span in spans])
    sequences = np.repeat(np.array([span.place for span in spans], np.int32), [len(span.tokens) for span in spans])
    wanted = np.zeros(len(tokens), np.int8)
    begin = 0
    for span in spans:
        wanted[[begin + offset for offset in span.samples]] = 1
        begin += len(span.tokens)
    outputs_before = np.concatenate([[0], np.cumsum(wanted)])
    calls, begin = [], 0
    while begin < len(tokens):
        # As far as the outputs go, and no further than the tokens may.
        end = int(np.searchsorted(outputs_before, outputs_before[begin] + most_outputs, side="right")) - 1
        end = min(end, begin + most_tokens, _end_of_kind(tokens, begin))
        calls.append(DecodeCall(tokens[begin:end], positions[begin:end], sequences[begin:end], wanted[begin:end]))
        begin = end
    return calls


def _end_of_kind(tokens: NDArray[np.int64], begin: int) -> int:
    """Where text ends for a picture, or a picture part for what comes after it."""
    if tokens[begin] < 0:
        others = np.flatnonzero(picture_parts(tokens[begin:]) != picture_parts(tokens[begin : begin + 1]))
    else:
        others = np.flatnonzero(tokens[begin:] < 0)
    return begin + int(others[0]) if len(others) else len(tokens)


def failure_of(code: int, reason: str) -> Exception:
    """What ``llama_decode`` means by a code that is not 0. Pure."""
    if code == _ABORTED:
        return StepAborted()
    if code == _NO_ROOM:
        return OutOfRoom("the KV cache has no room for the step")
    said = f": {reason}" if reason else ""
    if code == _NO_MEMORY:
        return OutOfRoom(f"there is no memory for the step{said}")
    return StepFailed(f"llama.cpp failed with {code}{said}")


class Arguments:
    """The arrays that a batch points into, for up to so many tokens. A token belongs to one sequence."""

    def __init__(self, most_tokens: int) -> None:
        self._token = np.zeros(most_tokens, np.int32)
        self._position = np.zeros(most_tokens, np.int32)
        self._sequence = np.zeros(most_tokens, np.int32)
        self._wanted = np.zeros(most_tokens, np.int8)
        self._one = np.ones(most_tokens, np.int32)
        # llama.cpp takes a list of sequences for each token.
        places = self._sequence.ctypes.data + self._sequence.itemsize * np.arange(most_tokens, dtype=np.int64)
        self._places = places.astype(np.uintp)

    def of(self, call: DecodeCall, vectors: NDArray[np.float32] | None = None) -> LlamaBatch:
        """Valid until the next call, as long as ``vectors`` are there, which come instead of tokens."""
        count = len(call.tokens)
        if vectors is None:
            self._token[:count] = call.tokens
        self._position[:count] = call.positions
        self._sequence[:count], self._wanted[:count] = call.sequences, call.wanted
        return LlamaBatch(
            count,
            self._token.ctypes.data if vectors is None else None,
            None if vectors is None else vectors.ctypes.data,
            self._position.ctypes.data,
            self._one.ctypes.data,
            self._places.ctypes.data,
            self._wanted.ctypes.data,
        )


class AbortFlag:
    """Tells llama.cpp between two nodes of the graph whether to give up.

    It asks by calling ``function`` with ``data``. A function of Python's would wait for the global lock at each of a
    thousand nodes, so it is C's ``strlen``: 1 where the flag, a text, has a character, and 0 where it has none.
    """

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)
        self.function = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p)
        self.data = ctypes.addressof(self._text)

    def set(self) -> None:
        self._text[0] = b"\1"

    def clear(self) -> None:
        self._text[0] = b"\0"
