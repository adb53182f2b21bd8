"""From a prompt, chat messages or text, to its token ids."""

from __future__ import annotations

from typing import Protocol

from gristmill.engines.openvino.chat_template import ChatTemplate
from gristmill.engines.protocol import EngineError, ErrorKind, Request
from gristmill.wire.chat import ChatCompletionRequest, Message


class TextEncoder(Protocol):
    """A tokenizer with what chat templates need; ``chat_template`` is empty where there is none, ``size`` the number
    of token ids."""

    chat_template: str
    bos_token: str
    eos_token: str

    @property
    def size(self) -> int: ...

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        """``special_tokens``: add what the model wants around a text (a chat template has it already)."""
        ...


class PromptTokens:
    """Token ids of prompts, never empty. Raises EngineError (invalid request) for those that have none."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._template = (
            ChatTemplate(encoder.chat_template, encoder.bos_token, encoder.eos_token) if encoder.chat_template else None
        )

    def of_request(self, request: Request) -> list[int]:
        if isinstance(request, ChatCompletionRequest):
            return self.of_messages(request.messages, request.add_generation_prompt, request.continue_final_message)
        if isinstance(request.prompt, str):
            return self.of_text(request.prompt, "prompt")
        size = self._encoder.size
        if not all(type(token) is int and 0 <= token < size for token in request.prompt):
            raise _invalid("prompt", f"A prompt of token ids must be integers from 0 to {size - 1}.")
        return _not_empty(list(request.prompt), "prompt")

    def of_messages(self, messages: list[Message], opening: bool | None, continuing: bool | None) -> list[int]:
        """``opening`` and ``continuing`` are a request's add_generation_prompt and continue_final_message."""
        if self._template is None:
            raise _invalid("messages", "This model has no chat template: send its prompts to /v1/completions.")
        text = self._template.render(messages, opening, continuing)
        return _not_empty(self._encoder.encode(text, special_tokens=False), "messages")

    def of_text(self, text: str, param: str) -> list[int]:
        """``param`` is where the request has it."""
        return _not_empty(self._encoder.encode(text, special_tokens=True), param)


def _not_empty(tokens: list[int], param: str) -> list[int]:
    if not tokens:
        raise _invalid(param, "The prompt is empty.")
    return tokens


def _invalid(param: str, message: str) -> EngineError:
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=param, code="invalid_value")
