"""The ollama engine with what ``gristmill bench`` measures besides rows: dropping the model, and Ollama's deprecated
``context`` parameter, a conversation so far as tokens.

``/api/generate`` returns the tokens of prompt and answer, and puts them before the next prompt that brings them along.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from gristmill.engines.errors import unavailable
from gristmill.engines.ollama.answers import PartCollector
from gristmill.engines.ollama.client import OllamaClient
from gristmill.engines.ollama.engine import OllamaEngine
from gristmill.engines.ollama.translation import Frozen, load_request, translate
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


async def _complete(
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


class MeasuredOllamaEngine(OllamaEngine):
    async def unload(self) -> None:
        """Have the server drop the model, so that the next request loads it again."""
        if self._running is not None:
            path, body = load_request(self._running.frozen, 0)
            await self._running.client.ask(path, AnswerPart, body)

    async def complete_in_context(
        self, request: ChatCompletionRequest, context: list[int]
    ) -> tuple[Completion, list[int]]:
        """Answer behind a conversation's tokens, and give those after the answer."""
        running = self._running
        if running is None:
            raise unavailable("The ollama engine is not running.")
        sent_at = time.monotonic()
        completion, load_seconds, after = await _complete(running.client, running.frozen, request, context)
        running.watch.row(load_seconds, sent_at, time.monotonic())
        return completion, after
