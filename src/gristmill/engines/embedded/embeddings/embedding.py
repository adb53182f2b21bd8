"""A request for embeddings while it is computed: some of its inputs have vectors, the others wait."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.embeddings.shortest_decimals import shortest_decimals
from gristmill.engines.errors import interrupted
from gristmill.engines.protocol import Embeddings


class EmbeddingTask:
    """``inputs`` in token ids. Each is handed in with ``note``; ``embeddings`` has the result when ``done``."""

    def __init__(
        self,
        request_id: int,
        model: str,
        inputs: list[list[int]],
        dimensions: int | None,
        normalised: bool,
        interactive: bool,
    ) -> None:
        """``dimensions``: numbers that are kept of a vector; None: all."""
        self.id = request_id
        self.inputs = inputs
        self.interactive = interactive
        self._model = model
        self._dimensions = dimensions
        self._normalised = normalised
        self._vectors: dict[int, list[float]] = {}

    @property
    def done(self) -> bool:
        return len(self._vectors) == len(self.inputs)

    def note(self, place: int, vector: NDArray[np.float32]) -> None:
        """The model's vector of an input. Raises EngineError where it has no value."""
        kept = vector[: self._dimensions].astype(np.float64)
        length = float(np.sqrt(kept @ kept))
        if not np.isfinite(length):
            raise interrupted("The model's vector of an input is not a number: its computing overflowed.")
        # A vector cut short is brought to length 1 again, as sentence-transformers and OpenAI do.
        if self._normalised and length > 0.0:
            kept /= length
        self._vectors[place] = shortest_decimals(kept.astype(np.float32))

    def embeddings(self) -> Embeddings:
        vectors = [self._vectors[place] for place in range(len(self.inputs))]
        return Embeddings(self._model, vectors, sum(map(len, self.inputs)))
