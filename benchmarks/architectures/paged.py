"""The ways in which the engine computes a sequence, each giving log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from gristmill.engines.embedded.kv.paged_memory import Copy
from gristmill.engines.embedded.openvino.kv_cache import BlockSpan


class PagedRows:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._size: int = model.block_size
        self._rows: list[BlockSpan] = []

    def whole(self, sequences: list[list[int]]) -> list[Any]:
        """All of the sequences in one step; after each of their tokens."""
        return self._forward([BlockSpan(tokens, 0, self._blocks(len(tokens)), ()) for tokens in self._begin(sequences)])

    def in_chunks(self, tokens: list[int], length: int) -> Any:
        (tokens,) = self._begin([tokens])
        blocks = self._blocks(len(tokens))
        chunks = [BlockSpan(tokens[at : at + length], at, blocks, ()) for at in range(0, len(tokens), length)]
        return np.concatenate([self._forward([chunk])[0] for chunk in chunks])

    def behind(self, prefix: list[int], tails: list[list[int]]) -> list[Any]:
        """The prefix once, then each tail behind it in one step: the last, partly filled block is copied."""
        (prefix,) = self._begin([prefix])
        shared = self._blocks(len(prefix))
        self._forward([BlockSpan(prefix, 0, shared, ())])
        full = len(prefix) // self._size
        self._rows = []
        for tail in tails:
            own = self._blocks(len(prefix) % self._size + len(tail) + 4 * self._size + 200)
            if len(prefix) % self._size:
                self._model.make_moves([Copy(shared[full], own[0])])
            self._rows.append(BlockSpan(tail, len(prefix), shared[:full] + own, ()))
        return self._forward(self._rows)

    def decoded(self, sequences: list[list[int]]) -> list[Any]:
        """A token of each row a step, after what ``behind`` has computed."""
        found = []
        for tokens in zip(*sequences, strict=True):
            self._rows = [
                row._replace(tokens=[token], past=row.past + len(row.tokens))
                for row, token in zip(self._rows, tokens, strict=True)
            ]
            found.append(self._forward(self._rows))
        return [np.concatenate(each) for each in zip(*found, strict=True)]

    def _begin(self, sequences: list[list[int]]) -> list[list[int]]:
        self._free = 0
        return sequences

    def _blocks(self, tokens: int) -> list[int]:
        count = -(-tokens // self._size)
        self._free += count
        assert self._free <= self._model.blocks
        return list(range(self._free - count, self._free))

    def _forward(self, spans: list[BlockSpan]) -> list[Any]:
        spans = [span._replace(samples=tuple(range(len(span.tokens)))) for span in spans]
        logits = self._model.forward(spans).astype(np.float64)
        logprobs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
        return np.split(logprobs, np.cumsum([len(span.tokens) for span in spans])[:-1])
