"""Embeddings on Ollama: from a request to the body of ``/api/embed``, and from its answer to vectors. Pure.

All inputs of a request go together. Left to itself, Ollama cuts inputs that are too long without a word, and gives
vectors as they are where they have fewer numbers than asked for; neither is let pass. Source: Ollama's
``server/routes.go`` (EmbedHandler, 0.33), whose vectors have length 1 and are written as float32 in the fewest digits.
"""

from __future__ import annotations

import msgspec

from gristmill.engines.errors import (
    EngineError,
    input_too_long,
    interrupted,
    too_many_dimensions,
    unsupported_parameter,
)
from gristmill.engines.ollama.translation import Frozen
from gristmill.engines.ollama.wire import FOREVER, EmbedAnswer, EmbedBody
from gristmill.engines.protocol import EmbeddingRequest, Embeddings

PATH = "/api/embed"

_decoder = msgspec.json.Decoder(EmbedAnswer)


def embed_body(request: EmbeddingRequest, frozen: Frozen) -> EmbedBody:
    """Raises EngineError for token ids, which Ollama does not take."""
    texts = [each for each in request.inputs if isinstance(each, str)]
    if len(texts) < len(request.inputs):
        raise unsupported_parameter("input (token ids)", "ollama")
    return EmbedBody(
        model=frozen.model, input=texts, keep_alive=FOREVER, truncate=False, options=frozen.runner,
        dimensions=request.dimensions,
    )  # fmt: skip


def read_embeddings(request: EmbeddingRequest, data: bytes) -> tuple[Embeddings, float]:
    """The vectors, and the seconds that loading the model took. Raises EngineError for an answer that is none."""
    try:
        answer = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise interrupted(f"Ollama's answer cannot be read: {error}.") from None
    if len(answer.embeddings) != len(request.inputs) or not all(answer.embeddings):
        raise interrupted(f"Ollama gave {len(answer.embeddings)} vectors for {len(request.inputs)} inputs.")
    size = len(answer.embeddings[0])
    if request.dimensions is not None and size != request.dimensions:
        raise too_many_dimensions(request.dimensions, size)
    embeddings = Embeddings(request.model, answer.embeddings, answer.prompt_eval_count)
    return embeddings, answer.load_duration / 1e9


def refused(error: EngineError, num_ctx: int) -> EngineError:
    """In the terms of the endpoint."""
    return input_too_long(num_ctx) if error.code == "context_length_exceeded" else error
