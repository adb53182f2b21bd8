"""A model that embeds, on llama.cpp: the inputs of a step as sequences of one batch, pooled by llama.cpp itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.embeddings.embedding_runner import Pooling
from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary
from gristmill.engines.embedded.llama_cpp.runner import MOST_SEQUENCES, Arguments, DecodeCall, StepFailed, failure_of

#: Tokens of the longest input where it has to be computed in one piece: memory for a step grows with it.
MOST_TOKENS = 8192
#: Tokens of a call where it need not. llama.cpp keeps room for logits of every one of them, which nobody asks for.
CALL_TOKENS = 512
#: ``enum llama_pooling_type``.
POOLING_TYPES: dict[Pooling, int] = {"mean": 1, "cls": 2, "last": 3}


class LlamaEmbedder:
    """Holds a context that embeds, of a loaded model.

    Where each token sees only those before it, an input may be computed in pieces, and llama.cpp pools what is in each;
    where tokens see all of the input it is one piece."""

    padded = False

    def __init__(self, library: LlamaLibrary, context: Any, size: int, pooling: Pooling, causal: bool) -> None:
        self.size = size
        self._library = library
        self._context = context
        self._memory = library.llama_get_memory(context)
        self._pooling = pooling
        self._causal = causal
        self._call_tokens: int = library.llama_n_batch(context)
        self._group_tokens: int = library.llama_n_ctx(context) if causal else self._call_tokens
        self._arguments = Arguments(self._call_tokens)

    def embed(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        """As in EmbeddingRunner. Raises StepFailed, or what ``failure_of`` says."""
        vectors = np.zeros((len(inputs), self.size), np.float32)
        for begin, end in groups(list(map(len, inputs)), self._group_tokens):
            if self._memory:
                self._library.llama_memory_clear(self._memory, False)
            for parts in calls(list(map(len, inputs[begin:end])), self._call_tokens):
                self._compute(inputs[begin:end], parts, vectors[begin:end])
        return vectors

    def _compute(self, inputs: list[list[int]], parts: list[InputSlice], vectors: NDArray[np.float32]) -> None:
        """Enter in ``vectors`` what the parts of one call add to them; a sequence's id is its input's place."""
        library = self._library
        lengths = [part.end - part.start for part in parts]
        call = DecodeCall(
            np.concatenate([np.array(inputs[part.place][part.start : part.end], np.int64) for part in parts]),
            np.concatenate([np.arange(part.start, part.end, dtype=np.int32) for part in parts]),
            np.repeat(np.array([part.place for part in parts], np.int32), lengths),
            np.ones(sum(lengths), np.int8),
        )
        library.log.forget()
        code = library.llama_decode(self._context, self._arguments.of(call))
        if code:
            raise failure_of(code, library.log.reason())
        for part, length in zip(parts, lengths, strict=True):
            found = library.llama_get_embeddings_seq(self._context, part.place)
            if not found:
                raise StepFailed("llama.cpp has computed no vector")
            pooled = np.ctypeslib.as_array(found, (self.size,))
            whole = len(inputs[part.place])
            if self._pooling == "mean":
                vectors[part.place] += pooled * (length / whole)
            elif part.start == 0 if self._pooling == "cls" else part.end == whole:
                vectors[part.place] = pooled


class InputSlice(NamedTuple):
    """Tokens ``start`` to ``end`` of input ``place``."""

    place: int
    start: int
    end: int


def groups(lengths: list[int], most_tokens: int) -> list[tuple[int, int]]:
    """From where to where inputs are computed together: no more than there are sequences, and so many tokens. Pure."""
    found: list[tuple[int, int]] = []
    begin = tokens = 0
    for place, length in enumerate(lengths):
        if place > begin and (place - begin == MOST_SEQUENCES or tokens + length > most_tokens):
            found.append((begin, place))
            begin, tokens = place, 0
        tokens += length
    return [*found, (begin, len(lengths))]


def calls(lengths: list[int], most_tokens: int) -> list[list[InputSlice]]:
    """All inputs, in order, in calls of at most so many tokens. Pure."""
    found: list[list[InputSlice]] = []
    room = 0
    for place, length in enumerate(lengths):
        start = 0
        while start < length:
            if not room:
                found.append([])
                room = most_tokens
            end = min(length, start + room)
            found[-1].append(InputSlice(place, start, end))
            room -= end - start
            start = end
    return found


class EmbeddingSizes(NamedTuple):
    """Tokens: of the longest ``input``, of a ``call``, and of all that is computed together, which has ``cells``."""

    input: int
    call: int
    cells: int


def sizes_for(trained: int, causal: bool, step_tokens: int, most_cells: int) -> EmbeddingSizes:
    """For a model trained for inputs of so many tokens. A call of fewer tokens than there are sequences is one that
    llama.cpp aborts at. Pure."""
    if causal:
        cells = max(min(max(trained, step_tokens), most_cells), MOST_SEQUENCES)
        return EmbeddingSizes(min(trained, cells), max(min(CALL_TOKENS, step_tokens), MOST_SEQUENCES), cells)
    longest = min(trained, MOST_TOKENS)
    call = max(longest, step_tokens, MOST_SEQUENCES)
    return EmbeddingSizes(longest, call, call)


def set_to_embed(params: Any, sizes: EmbeddingSizes, pooling: Pooling) -> None:
    """In a context's parameters."""
    params.n_ctx = sizes.cells
    params.n_batch = params.n_ubatch = sizes.call
    # All tokens of a call are outputs then.
    params.n_outputs_max = params.n_outputs_max_per_seq = sizes.call
    params.pooling_type = POOLING_TYPES[pooling]
    params.embeddings = True
