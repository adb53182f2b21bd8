"""Server-sent events: for a completion as it is decoded, or passed on from a server as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import msgspec
from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.errors import EngineError, interrupted
from gristmill.engines.protocol import ChoiceDelta, Completion, ForwardedAnswer, ForwardRequest, Request
from gristmill.inference.bridge import Translator, in_words_of
from gristmill.inference.chat_reading import StreamReader
from gristmill.inference.chunks import Chunks, Piece
from gristmill.inference.failures import api_error
from gristmill.telemetry.log import get_logger
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.json import encode

log = get_logger(__name__)

#: The media type; each event is a chunk, the last is ``[DONE]``.
EVENTS = "text/event-stream"


async def stream(dispatcher: Dispatcher, request: Request, chunks: Chunks) -> Response:
    """Answer with events. An error before the first piece of text is an ordinary HTTP error."""
    queue: asyncio.Queue[Piece | EngineError] = asyncio.Queue()
    put = queue.put_nowait
    return await _streamed(
        lambda: dispatcher.ask_once(request, put),
        queue,
        lambda first: _events(first, queue, chunks),
    )


async def forward_stream(dispatcher: Dispatcher, request: ForwardRequest) -> Response:
    """The same with a server's own events. What fails after the first of them ends the stream with an error event."""
    queue: asyncio.Queue[bytes | ForwardedAnswer | EngineError] = asyncio.Queue()
    return await _streamed(
        lambda: dispatcher.ask_once(request, queue.put_nowait),
        queue,
        lambda first: _forwarded_events(first, queue),
    )


async def bridged_stream(
    dispatcher: Dispatcher,
    asked: ChatCompletionRequest | ForwardRequest,
    translator: Translator,
    names: Mapping[str, str],
) -> Response:
    """Answer with the events of another dialect than OpenAI's chat completions, see ``inference/bridge.py``."""
    queue: asyncio.Queue[Piece | EngineError] = asyncio.Queue()

    async def work() -> Completion:
        with in_words_of(names):
            if not isinstance(asked, ForwardRequest):
                return await dispatcher.ask_once(asked, queue.put_nowait)
            reader = StreamReader(asked.model)

            def read(event: bytes) -> None:
                for delta in reader.read(event):
                    queue.put_nowait(delta)

            await dispatcher.ask_once(asked, read)
            return reader.completion()

    return await _streamed(work, queue, lambda first: _translated(first, queue, translator))


async def _streamed(
    work: Callable[[], Coroutine[Any, Any, Any]],
    queue: asyncio.Queue[Any],
    events: Callable[[Any], AsyncIterator[bytes]],
) -> Response:
    """``work`` puts what there is to say into ``queue``, where its result or error follows; ``events`` says it from the
    first of it on."""

    async def ask() -> None:
        try:
            queue.put_nowait(await work())
        except EngineError as error:
            queue.put_nowait(error)
        except Exception as error:
            # Without an end of the queue its reader would wait for ever.
            log.error("a stream failed unexpectedly", exc_info=error)
            queue.put_nowait(interrupted("The server had an unexpected error while it was answering."))

    asking = asyncio.create_task(ask())
    try:
        first = await queue.get()
        if isinstance(first, EngineError):
            raise first
    except BaseException:
        asking.cancel()
        raise
    return _EventStream(asking, events(first))


class _EventStream(StreamingResponse):
    """The reader may go away at any time, also before the first event: then nobody wants the rest."""

    def __init__(self, asking: asyncio.Task[None], events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type=EVENTS)
        self._asking = asking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._asking.cancel()


async def _events(first: Piece, queue: asyncio.Queue[Piece | EngineError], chunks: Chunks) -> AsyncIterator[bytes]:
    for chunk in chunks(None):
        yield _event(encode(chunk))
    piece: Piece | EngineError = first
    while isinstance(piece, ChoiceDelta):
        for chunk in chunks(piece):
            yield _event(encode(chunk))
        piece = await queue.get()
    if isinstance(piece, EngineError):
        yield _event(encode(api_error(piece).response()))
        return
    for chunk in chunks(piece):
        yield _event(encode(chunk))
    yield _event(b"[DONE]")


async def _forwarded_events(
    first: bytes | ForwardedAnswer, queue: asyncio.Queue[bytes | ForwardedAnswer | EngineError]
) -> AsyncIterator[bytes]:
    event: bytes | ForwardedAnswer | EngineError = first
    while isinstance(event, bytes):
        yield event
        event = await queue.get()
    if isinstance(event, EngineError):
        yield _event(encode(api_error(event).response()))


async def _translated(
    first: Piece, queue: asyncio.Queue[Piece | EngineError], translator: Translator
) -> AsyncIterator[bytes]:
    for event in translator.begin():
        yield _named_event(event)
    piece: Piece | EngineError = first
    while isinstance(piece, ChoiceDelta):
        for event in translator.delta(piece):
            yield _named_event(event)
        piece = await queue.get()
    last = translator.failed(api_error(piece)) if isinstance(piece, EngineError) else translator.finish(piece)
    for event in last:
        yield _named_event(event)


def _named_event(event: msgspec.Struct) -> bytes:
    return b"event: " + str(event.__struct_config__.tag).encode() + b"\n" + _event(encode(event))


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
