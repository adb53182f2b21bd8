"""Asking the engine for a caller who is waiting: one attempt, given up when the caller goes away."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from fastapi import Request, Response

from gristmill.api.disconnect import unless_disconnected
from gristmill.api.exchange import host, reply
from gristmill.api.streaming import forward_stream
from gristmill.engines.protocol import ForwardRequest
from gristmill.inference import forwarding
from gristmill.inference.answer import Answer, Backend


def backend(request: Request) -> Backend:
    """The engine; its error is the caller's if it fails."""
    dispatcher = host(request).dispatcher
    return Backend(dispatcher.ask_once, dispatcher.forwards)


async def answered(request: Request, work: Coroutine[Any, Any, Answer]) -> Response:
    return reply((await unless_disconnected(request, work)).body)


async def forwarded(request: Request, wanted: ForwardRequest) -> Response:
    """A server's answer as it came, streamed where that is wanted."""
    dispatcher = host(request).dispatcher
    if wanted.stream:
        return await unless_disconnected(request, forward_stream(dispatcher, wanted))
    return await answered(request, forwarding.answer(wanted, dispatcher.ask_once))
