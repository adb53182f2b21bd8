"""A stream whose work fails in a way that nobody foresaw: it ends, and says so, whether it has begun or not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gristmill.api.streaming import stream
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import ChoiceDelta, OnDelta
from gristmill.wire.chat import ChatCompletionRequest, Message


class Defective:
    """A dispatcher that says some pieces and then breaks."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    async def ask_once(self, request: Any, on_delta: OnDelta) -> Any:
        for _ in range(self._pieces):
            on_delta(ChoiceDelta(0, "x"))
            await asyncio.sleep(0)
        raise ZeroDivisionError("a defect")


def asked() -> ChatCompletionRequest:
    return ChatCompletionRequest("simulated", [Message("user", "Hi")])


def chunks(piece: Any) -> list[Any]:
    return [] if piece is None else [piece]


async def test_before_the_first_piece_it_is_an_error_of_the_request() -> None:
    dispatcher: Any = Defective(0)
    async with asyncio.timeout(20):
        with pytest.raises(EngineError, match="unexpected error") as caught:
            await stream(dispatcher, asked(), chunks)
    assert caught.value.status == 500


async def test_afterwards_the_last_event_is_an_error() -> None:
    dispatcher: Any = Defective(2)
    async with asyncio.timeout(20):
        answer: Any = await stream(dispatcher, asked(), chunks)
        events = [event async for event in answer.body_iterator]
    assert len(events) == 3
    assert "unexpected error" in json.loads(events[-1].removeprefix(b"data: "))["error"]["message"]
