"""What a library must give the embedded engine of a model that embeds: a vector for each input, computed at once.

Such a model has a process, preparation and frames like one that writes, but no KV cache and no scheduler: an input is
computed whole, in one step, and leaves nothing behind.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.model_runner import EmbeddedOptions
from gristmill.engines.errors import invalid_value, too_many_dimensions
from gristmill.engines.protocol import Computing

#: How the vectors of an input's tokens become one: their mean, that of the first, that of the last.
Pooling = Literal["mean", "cls", "last"]


class EmbeddingOptions(EmbeddedOptions, frozen=True):
    """Options of an engine that loads models that embed as well."""

    #: How a model embeds, instead of what its files say; with it a model that writes embeds, and only that.
    pooling: Literal["model", "mean", "cls", "last"] = "model"
    #: Whether vectors may be cut to as many numbers as a request asks for; where a model's files say so, it is known.
    matryoshka: bool = False


class InputEncoder(Protocol):
    """The tokenizer of a model that embeds; used by several threads at a time. ``size``: the number of token ids."""

    @property
    def size(self) -> int: ...

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        """``special_tokens``: add what the model wants around a text. Raises UnicodeEncodeError for half of a
        surrogate pair."""
        ...


class EmbeddingRunner(Protocol):
    """A loaded model; used by one thread. ``size``: numbers of a vector. ``padded``: inputs that are computed together
    cost as much as if all were as long as the longest."""

    size: int
    padded: bool

    def embed(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        """The vectors of inputs in token ids, shape (inputs, size): pooled, as long as the model leaves them. No
        input's vector depends on the others."""
        ...


class Cuts(NamedTuple):
    """To how many numbers a model's vectors may be cut, as models trained for it can (Matryoshka): to each of
    ``sizes``, or with ``any_size`` to whatever a request asks for."""

    sizes: tuple[int, ...] = ()
    any_size: bool = False

    def check(self, dimensions: int, size: int) -> None:
        """``size``: numbers of an uncut vector. Raises EngineError."""
        if dimensions > size:
            raise too_many_dimensions(dimensions, size)
        if dimensions == size or self.any_size or dimensions in self.sizes:
            return
        if self.sizes:
            known = ", ".join(map(str, self.sizes))
            message = f"Invalid 'dimensions': this model's vectors may be cut to {known} numbers, not {dimensions:,}."
        else:
            message = (
                f"Invalid 'dimensions': this model's vectors have {size:,} numbers, and it is not known to have been "
                "trained for shorter ones. If its card says that it was (Matryoshka), serve it with -O matryoshka=true."
            )
        raise invalid_value("dimensions", message)


class LoadedEmbedder(NamedTuple):
    """``context_length``: tokens of the longest input, those around a text included. ``normalised``: whether vectors
    are brought to length 1; the model's own pipeline says so. ``notices`` are sentences for the log."""

    runner: EmbeddingRunner
    encoder: InputEncoder
    context_length: int
    cuts: Cuts
    normalised: bool
    notices: list[str]
    computing: Computing | None = None
