"""Ollama's deprecated ``context`` parameter: a conversation so far, as tokens. For ``gristmill bench`` only.

``/api/generate`` returns the tokens of prompt and answer, and puts them before the next prompt that brings them along.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gristmill.engines.ollama.answers import PartCollector
from gristmill.engines.ollama.client import OllamaClient
from gristmill.engines.ollama.translation import Frozen, translate
from gristmill.engines.ollama.wire import AnswerPart, ChatBody, Options
from gristmill.engines.protocol import Completion
from gristmill.wire.chat import ChatCompletionRequest

#: Seconds for one answer.
_TIMEOUT = 600.0


class ContextBody(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """``POST /api/generate`` with the model's own template; ``system`` for the first prompt of a context."""

    model: str
    prompt: str
    keep_alive: int
    options: Options
    stream: bool
    truncate: bool
    system: str | None = None
    context: list[int] | None = None
    format: Any = None
    think: bool | None = None


class ContextPart(AnswerPart, frozen=True):
    context: tuple[int, ...] = ()


async def complete_in_context(
    client: OllamaClient, frozen: Frozen, request: ChatCompletionRequest, context: list[int]
) -> tuple[Completion, float, list[int]]:
    """The answer, the seconds spent loading, and the context after it. Raises EngineError."""
    asked = translate(request, frozen, stream=False)
    chat = asked.body
    assert isinstance(chat, ChatBody)
    body = ContextBody(
        model=chat.model,
        prompt="\n\n".join(message.content for message in chat.messages if message.role != "system"),
        system="\n\n".join(message.content for message in chat.messages if message.role == "system") or None,
        context=context or None,
        keep_alive=chat.keep_alive,
        options=chat.options,
        stream=False,
        truncate=False,
        format=chat.format,
        think=chat.think,
    )
    part = await client.ask("/api/generate", ContextPart, body, _TIMEOUT)
    collector = PartCollector()
    collector.add(msgspec.json.encode(part))
    answered = collector.finish(request.model, asked, frozen.num_ctx)
    return answered.completion, answered.load_seconds, list(part.context)
