"""Requests as messages to another process that answers them: a worker of the embedded engine, or a replica."""

from __future__ import annotations

import msgspec

from gristmill.engines.protocol import EmbeddingRequest, LabelRequest, Request
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest


class Submit(msgspec.Struct, tag=True, frozen=True):
    """Exactly one of ``chat`` and ``text`` is set. ``stream``: send Decoded frames as text becomes certain.
    ``interactive``: somebody is waiting for the answer, so it goes before the rows of batches."""

    id: int
    chat: ChatCompletionRequest | None = None
    text: CompletionRequest | None = None
    stream: bool = False
    interactive: bool = False


class SubmitScore(msgspec.Struct, tag=True, frozen=True):
    """Exactly one of ``chat`` and ``text`` is the prompt, exactly one of ``labels`` and ``label_ids`` is set."""

    id: int
    model: str
    chat: list[Message] | None = None
    text: str | None = None
    labels: list[str] | None = None
    label_ids: list[int] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    interactive: bool = False


class SubmitEmbedding(msgspec.Struct, tag=True, frozen=True):
    """Exactly one of ``texts`` and ``tokens`` is set. ``dimensions``: numbers wanted of a vector; None: all."""

    id: int
    model: str
    texts: list[str] | None = None
    tokens: list[list[int]] | None = None
    dimensions: int | None = None
    interactive: bool = False


#: A request of any kind.
AnySubmit = Submit | SubmitScore | SubmitEmbedding


def submission(
    number: int, request: Request | LabelRequest | EmbeddingRequest, stream: bool, interactive: bool
) -> AnySubmit:
    """The frame that asks for ``request``."""
    match request:
        case ChatCompletionRequest():
            return Submit(number, chat=request, stream=stream, interactive=interactive)
        case CompletionRequest():
            return Submit(number, text=request, stream=stream, interactive=interactive)
        case LabelRequest():
            chat, text = (None, request.prompt) if isinstance(request.prompt, str) else (request.prompt, None)
            texts = [label for label in request.labels if isinstance(label, str)]
            ids = [label for label in request.labels if isinstance(label, int)]
            return SubmitScore(
                number, request.model, chat, text, texts or None, ids or None,
                request.add_generation_prompt, request.continue_final_message, interactive,
            )  # fmt: skip
        case EmbeddingRequest():
            inputs = [each for each in request.inputs if isinstance(each, str)]
            tokens = [each for each in request.inputs if not isinstance(each, str)]
            return SubmitEmbedding(
                number, request.model, inputs or None, tokens or None, request.dimensions, interactive
            )


def submitted(frame: AnySubmit) -> Request | LabelRequest | EmbeddingRequest:
    """The request that ``submission`` has put into the frame."""
    match frame:
        case Submit(chat=ChatCompletionRequest() as chat):
            return chat
        case Submit(text=CompletionRequest() as text):
            return text
        case SubmitScore():
            prompt = frame.chat if frame.text is None else frame.text
            return LabelRequest(
                frame.model, prompt or [], frame.labels or frame.label_ids or [],
                frame.add_generation_prompt, frame.continue_final_message,
            )  # fmt: skip
        case SubmitEmbedding():
            return EmbeddingRequest(frame.model, frame.texts or frame.tokens or [], frame.dimensions)
        case _:
            raise ValueError("a request without a prompt")


class Cancel(msgspec.Struct, tag=True, frozen=True):
    id: int
