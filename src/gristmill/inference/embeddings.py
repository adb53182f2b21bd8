"""``/v1/embeddings``: a vector for each text, or list of token ids."""

from __future__ import annotations

import base64
import sys
from array import array

import msgspec

from gristmill.engines.protocol import EmbeddingRequest
from gristmill.inference import forwarding
from gristmill.inference.answer import MAX_PROMPTS, Answer, Backend, too_many
from gristmill.inference.prompt_list import each_of
from gristmill.wire.embeddings import CreateEmbeddingRequest, CreateEmbeddingResponse, Embedding, EmbeddingUsage
from gristmill.wire.errors import ApiError
from gristmill.wire.json import decode
from gristmill.wire.paths import EMBEDDINGS

_decoder = msgspec.json.Decoder(CreateEmbeddingRequest)


def parse(body: bytes) -> tuple[CreateEmbeddingRequest, EmbeddingRequest]:
    """The request as it came, and what the engine is asked."""
    request = decode(_decoder, body)
    inputs = each_of(request.input, "input")
    if len(inputs) > MAX_PROMPTS:
        raise too_many("input", "inputs", len(inputs))
    if "" in inputs:
        message = "Invalid 'input': a text must not be empty."
        raise ApiError(400, message, param="input", code="invalid_value")
    return request, EmbeddingRequest(request.model, inputs, request.dimensions)


async def answer(body: bytes, backend: Backend) -> Answer:
    if backend.forwards(EMBEDDINGS):
        return await forwarding.answer(forwarding.plain_request(EMBEDDINGS, body), backend.ask)
    request, asked = parse(body)
    found = await backend.ask(asked)
    present = _base64 if request.encoding_format == "base64" else list
    response = CreateEmbeddingResponse(
        data=[Embedding(index, present(vector)) for index, vector in enumerate(found.vectors)],
        model=found.model,
        usage=EmbeddingUsage(found.prompt_tokens, found.prompt_tokens),
    )
    # Of an earlier input nothing can be reused: a vector is computed from all of its tokens.
    return Answer(response, found.prompt_tokens, 0, 0)


def _base64(vector: list[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
