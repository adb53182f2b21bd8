"""Chat completions as servers write them: whole answers and the chunks of streams, read with tolerance.

Besides OpenAI's shapes: reasoning as ``reasoning_content`` (DeepSeek, SGLang) or ``reasoning`` (vLLM, Ollama),
tool calls without index or id (Gemini), contents in parts (Mistral). What else there is, is skipped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gristmill.wire.chat import ContentPart, TokenLogprob


class ReadFunction(msgspec.Struct):
    name: str | None = None
    #: JSON in a string; some servers write the object itself.
    arguments: Any = None


class ReadToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: ReadFunction | None = None


class ReadMessage(msgspec.Struct):
    content: str | list[ContentPart] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ReadToolCall] | None = None

    def text(self) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text or "" for part in self.content)

    def thought(self) -> str:
        # Servers that have both write the same into both.
        return self.reasoning_content or self.reasoning or ""


class ReadLogprobs(msgspec.Struct):
    content: list[TokenLogprob] | None = None


class ReadChoice(msgspec.Struct):
    """Of a whole answer (``message``), or of a chunk (``delta``)."""

    index: int = 0
    message: ReadMessage | None = None
    delta: ReadMessage | None = None
    finish_reason: str | None = None
    logprobs: ReadLogprobs | None = None
    #: vLLM's: the text of a stop sequence, or the number of a token.
    stop_reason: Any = None


class ReadPromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class ReadCompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class ReadUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: ReadPromptDetails | None = None
    completion_tokens_details: ReadCompletionDetails | None = None


class ReadChat(msgspec.Struct):
    model: str | None = None
    choices: list[ReadChoice] | None = None
    usage: ReadUsage | None = None
