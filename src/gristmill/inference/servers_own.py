"""Endpoints that only servers answer, whose requests pass through: ``/v1/rerank`` and ``/v1/moderations``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from gristmill.inference import forwarding
from gristmill.inference.answer import Answer, Backend


def passed_on(path: str) -> Callable[[bytes, Backend], Coroutine[Any, Any, Answer]]:
    """An endpoint's ``answer``."""

    async def answer(body: bytes, backend: Backend) -> Answer:
        return await forwarding.answer(forwarding.plain_request(path, body), backend.ask)

    return answer
