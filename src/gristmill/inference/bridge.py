"""The bridge from another dialect to chat completions, on every engine.

A dialect translates the body of a request into that of a chat completion (bytes), has it answered here, and translates
the answer back. What comes is what ``engines.protocol`` says, whoever gave it: a ``Completion`` with one choice; and
in a stream first a ``ChoiceDelta`` for each piece of it. A server that requests pass through to is read into the same
(``inference/chat_reading.py``), reasoning, tool calls and refusals too::

    async def answer(body: bytes, backend: Backend) -> Answer:
        wanted = parse(body)                                   # raises the dialect's own 400s
        completion = await bridge.complete(chat_body(wanted), backend, NAMES)
        return Answer(answer_of(wanted, completion), *bridge.tokens(completion))

    # and streamed, in api/:
    asked = dispatcher.resolved(bridge.request(chat_body(wanted), dispatcher.passes_through, NAMES))
    await unless_disconnected(request, bridged_stream(dispatcher, asked, SomeTranslator(wanted), NAMES))

``NAMES`` are the dialect's names for parameters of chat completions: errors speak of ``max_output_tokens``, not of
``max_completion_tokens``. For a stream, the chat body says ``"stream": true`` and asks for ``include_usage``
(``STREAMED``).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import ChoiceDelta, Completion, ForwardRequest
from gristmill.inference import chat, chat_reading, forwarding
from gristmill.inference.answer import Backend
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.errors import ApiError

#: Fields of a chat body whose answer is to be streamed.
STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


_ROOT = re.compile(r"\w+")


class Translator(Protocol):
    """Turns one answer, as it comes, into the events of a dialect. Pure; each call returns the events to send now.

    An event is a tagged struct; its tag is the name of the event, and it is sent as ``event: TAG`` and ``data: JSON``.
    ``begin`` comes once before the first piece, ``delta`` for each piece, and last either ``finish`` with the whole
    completion or ``failed``. An answer without any piece is ``begin`` and ``finish``.
    """

    def begin(self) -> Sequence[msgspec.Struct]: ...

    def delta(self, delta: ChoiceDelta) -> Sequence[msgspec.Struct]: ...

    def finish(self, completion: Completion) -> Sequence[msgspec.Struct]: ...

    def failed(self, error: ApiError) -> Sequence[msgspec.Struct]: ...


def request(body: bytes, passes_through: bool, names: Mapping[str, str]) -> ChatCompletionRequest | ForwardRequest:
    """What the engine is asked for a chat body. Raises ApiError."""
    with in_words_of(names):
        return forwarding.chat_request(chat.PATH, body) if passes_through else chat.parse(body)


async def complete(body: bytes, backend: Backend, names: Mapping[str, str]) -> Completion:
    """The answer to a chat body, not streamed. Raises ApiError and EngineError, with the dialect's names."""
    asked = request(body, backend.forwards(chat.PATH), names)
    with in_words_of(names):
        if isinstance(asked, ForwardRequest):
            return chat_reading.completion((await backend.ask(asked)).body, asked.model)
        return await backend.ask(asked)


def tokens(completion: Completion) -> tuple[int, int | None, int]:
    """The token counts of an ``Answer``."""
    return completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens


@contextlib.contextmanager
def in_words_of(names: Mapping[str, str]) -> Iterator[None]:
    """Errors that are raised within name parameters as the dialect does."""
    try:
        yield
    except EngineError as error:
        raise EngineError(
            error.kind,
            _message(error.message, error.param, names),
            status=error.status,
            param=_renamed(error.param, names),
            code=error.code,
            type=error.type,
            retry_after=error.retry_after,
            crashed=error.crashed,
        ) from error
    except ApiError as error:
        body = error.body
        raise ApiError(
            error.status,
            _message(body.message, body.param, names),
            param=_renamed(body.param, names),
            code=body.code,
            type=body.type,
            retry=error.retry,
            retry_after=error.retry_after,
        ) from error


def _renamed(param: str | None, names: Mapping[str, str]) -> str | None:
    """The dialect's name. Where in a translated value the error is, would mislead: that is left out."""
    if param is None:
        return None
    root = _ROOT.match(param)
    return names.get(root[0], param) if root else param


def _message(message: str, param: str | None, names: Mapping[str, str]) -> str:
    """``'messages[2].content (image_url)'`` becomes ``'input' (image_url)``."""
    new = _renamed(param, names)
    if param is not None and new != param and (rest := param.removeprefix(_ROOT.findall(param)[0])):
        detail = rest.rpartition(" (")[2].removesuffix(")") if rest.endswith(")") else rest.rpartition(".")[2]
        message = message.replace(f"'{param}'", f"'{new}' ({detail})")
    for name, own in names.items():
        message = message.replace(f"'{name}'", f"'{own}'")
    return message
