"""From a prompt, chat messages or text, to its token ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gristmill.engines.openvino.chat_template import ChatTemplate
from gristmill.engines.protocol import EngineError, ErrorKind, Request, context_length_exceeded
from gristmill.wire.chat import ChatCompletionRequest, Message


class TextEncoder(Protocol):
    """A tokenizer with what chat templates need; ``chat_template`` is empty where there is none, ``size`` the number
    of token ids."""

    chat_template: str
    bos_token: str
    eos_token: str

    @property
    def size(self) -> int: ...

    @property
    def longest_token(self) -> int:
        """Length of the longest token, in bytes."""
        ...

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        """``special_tokens``: add what the model wants around a text (a chat template has it already)."""
        ...


class PromptTokens:
    """Token ids of prompts, never empty and never cut. Raises EngineError (invalid request) for those that have none.

    With a ``context_length``, in tokens, what cannot fit it whatever its tokens are is refused by its size alone:
    tokenizing sixty megabytes takes a minute.
    """

    def __init__(self, encoder: TextEncoder, context_length: int | None = None) -> None:
        self._encoder = encoder
        self._context_length = context_length
        self._template = (
            ChatTemplate(encoder.chat_template, encoder.bos_token, encoder.eos_token) if encoder.chat_template else None
        )

    def of_request(self, request: Request) -> list[int]:
        if isinstance(request, ChatCompletionRequest):
            return self.of_messages(request.messages, request.add_generation_prompt, request.continue_final_message)
        if isinstance(request.prompt, str):
            return self.of_text(request.prompt, "prompt")
        size = self._encoder.size
        if self._context_length is not None and len(request.prompt) >= self._context_length:
            refusal = context_length_exceeded(len(request.prompt), request.token_limit() or 1, self._context_length)
            refusal.param = "prompt"
            raise refusal
        if not all(type(token) is int and 0 <= token < size for token in request.prompt):
            raise _invalid("prompt", f"A prompt of token ids must be integers from 0 to {size - 1}.")
        return _not_empty(list(request.prompt), "prompt")

    def of_messages(self, messages: list[Message], opening: bool | None, continuing: bool | None) -> list[int]:
        """``opening`` and ``continuing`` are a request's add_generation_prompt and continue_final_message."""
        if self._template is None:
            raise _invalid("messages", "This model has no chat template: send its prompts to /v1/completions.")
        # Rendering, too, takes its time.
        if self._context_length is not None and len(messages) > self._context_length:
            raise _too_long(
                f"These are {len(messages):,} messages, of at least a token each.", "messages", self._context_length
            )
        self._check_size((message.text() for message in messages), "messages")
        text = self._template.render(messages, opening, continuing)
        return self._encode(text, "messages", special_tokens=False)

    def of_text(self, text: str, param: str) -> list[int]:
        """``param`` is where the request has it."""
        return self._encode(text, param, special_tokens=True)

    def _encode(self, text: str, param: str, special_tokens: bool) -> list[int]:
        self._check_size([text], param)
        try:
            tokens = self._encoder.encode(text, special_tokens)
        except UnicodeEncodeError:
            raise _invalid(param, "The prompt holds half of a surrogate pair, which is no character.") from None
        return _not_empty(tokens, param)

    def _check_size(self, texts: Iterable[str], param: str) -> None:
        if self._context_length is None:
            return
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        longest = self._encoder.longest_token
        if size > self._context_length * longest:
            counted = f"Your prompt has {size:,} bytes, which are at least {-(-size // longest):,} tokens"
            raise _too_long(f"{counted} (the longest token has {longest} bytes).", param, self._context_length)


def _not_empty(tokens: list[int], param: str) -> list[int]:
    if not tokens:
        raise _invalid(param, "The prompt is empty.")
    return tokens


def _too_long(counted: str, param: str, context_length: int) -> EngineError:
    message = f"This model's maximum context length is {context_length} tokens. {counted}"
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=param, code="context_length_exceeded")


def _invalid(param: str, message: str) -> EngineError:
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=param, code="invalid_value")
