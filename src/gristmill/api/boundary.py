"""The boundary of one request: its id, the pace and the memory of its body, and the one log line where it fails."""

from __future__ import annotations

import asyncio
import uuid

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gristmill.api.errors import answer, is_anthropic
from gristmill.api.request_count import count_request
from gristmill.telemetry.log import get_logger
from gristmill.wire.errors import ApiError, server_error

log = get_logger(__name__)

#: The longest wait for the next bytes of a body, and what all waits together may come to, besides a second for each
#: ``MIN_BYTES_PER_SECOND`` received: Apache's defaults (mod_reqtimeout).
IDLE_SECONDS = 20.0
MIN_BYTES_PER_SECOND = 500
#: JSON bodies in memory, of all requests that are being read or answered.
MAX_HELD_BYTES = 256 * 1024 * 1024


class Boundary:
    """Middleware around everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._memory = BodyMemory(MAX_HELD_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status: int | None = None
        request_id = scope["request_id"] = f"req_{uuid.uuid4().hex}"
        header = "request-id" if is_anthropic(scope) else "x-request-id"

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[header] = request_id
            await send(message)

        held = scope["held_body"] = HeldBody(self._memory)
        where = {"method": scope["method"], "path": scope["path"], "request_id": request_id}
        refusal: ApiError | None = None
        try:
            await self._app(scope, PacedBody(receive).receive, send_with_id)
        except ClientDisconnect:
            log.info("client went away", **where)
        except asyncio.CancelledError:
            # Only the end of the server does this.
            refusal = server_error(503, "The server is stopping.", retry_after=5)
        except Exception as error:
            log.error("a request failed unexpectedly", **where, exc_info=error)
            message = "The server had an unexpected error while processing your request; its log has the details."
            refusal = server_error(500, message)
        finally:
            held.release()
        if refusal is not None and status is None:
            await answer(refusal, scope)(scope, receive, send_with_id)
        count_request(scope, status)


class PacedBody:
    """Receives a request's body from a client that must not take for ever. Only waiting counts, not our own work."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._complete = False
        self._waited = 0.0
        self._bytes = 0

    async def receive(self) -> Message:
        """Raises ApiError 408. After the body come disconnects, for which one may wait at leisure."""
        if self._complete:
            return await self._receive()
        now = asyncio.get_running_loop().time
        began = now()
        allowed = IDLE_SECONDS + self._bytes / MIN_BYTES_PER_SECOND - self._waited
        try:
            async with asyncio.timeout(min(allowed, IDLE_SECONDS)):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "The request's body came too slowly.", code="request_timeout") from None
        self._waited += now() - began
        self._bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message


class BodyMemory:
    """Bytes that all requests' JSON bodies may take together."""

    def __init__(self, limit: int) -> None:
        self.left = limit


class HeldBody:
    """One request's share of the memory for bodies, until it has been answered."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._bytes = 0

    def take(self, size: int) -> None:
        """Raises ApiError 503 where there is no room."""
        if size > self._memory.left:
            message = "The server is busy with very large requests: try again in a moment."
            raise server_error(503, message, "server_busy", retry_after=2)
        self._memory.left -= size
        self._bytes += size

    def release(self) -> None:
        self._memory.left += self._bytes
        self._bytes = 0
