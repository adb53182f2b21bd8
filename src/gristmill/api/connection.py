"""One client's connection, with limits that uvicorn's own protocol has not: no client may hold one for ever.

Times and rates are Apache's defaults (mod_reqtimeout), sizes those of common servers. What a request may send after its
head is limited where its body is read (``boundary``).
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import sys
import termios
import uuid

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gristmill.api.errors import answer
from gristmill.wire.errors import ApiError, server_error
from gristmill.wire.json import encode

#: Request line and headers together, and the trailers after a chunked body.
MAX_HEAD_BYTES = 64 * 1024
#: From a request's first byte to the end of its headers; also before the first byte.
HEAD_SECONDS = 20.0
#: Between two requests.
KEEP_ALIVE_SECONDS = 20
#: For what a client still sends when it has its answer already.
DRAIN_SECONDS = 5.0
#: A reader must take at least this much of what waits for it, looked at every ``READ_SECONDS``.
MIN_BYTES_PER_SECOND = 500
READ_SECONDS = 30.0
#: Requests that a client may send ahead of the answer to an earlier one.
MAX_PIPELINED = 16
#: Connections beyond the limit that are told so; further ones are closed at once.
_TOLD = 64
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class ClientConnection(HttpToolsProtocol):
    """``check`` is called about once a second, with the event loop's time."""

    max_connections = 1024

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline: float | None = self.loop.time() + HEAD_SECONDS
        self._begun = self._in_body = self._answered = False
        self._head_bytes = self._unparsed_bytes = 0
        self._refusal: ApiError | None = None
        self._unread: tuple[float, int] | None = None
        self._uvicorn_app = self.app
        if len(self.connections) > self.max_connections + _TOLD:
            transport.abort()

    def check(self, now: float) -> None:
        """Close the connection if its client has taken too long."""
        if self._unread is None and self.transport.is_closing():
            # It is open for as long as bytes of an answer wait for the client.
            self._unread = now, self._waiting_bytes()
        if self._unread is not None:
            self._check_reader(now, *self._unread)
        elif self._deadline is not None and now > self._deadline and not self._is_answering():
            self._expire()

    def data_received(self, data: bytes) -> None:
        if self._answered or self.transport.is_closing():
            return
        self._unparsed_bytes += len(data)
        super().data_received(data if self._in_body else _without_upgrade(data))
        if self._unparsed_bytes > MAX_HEAD_BYTES and not self._answered:
            self._refuse(_head_too_large())

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True
        self._head_bytes = 0
        self._deadline = self.loop.time() + HEAD_SECONDS

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self._fail(ApiError(429, f"More than {MAX_PIPELINED} requests were sent ahead of an answer."))
        self._begun = False
        self._in_body = True
        self._deadline = None
        crowded = len(self.connections) > self.max_connections
        self.app = _crowded if crowded else self._uvicorn_app
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._unparsed_bytes = self._head_bytes = 0
        super().on_message_complete()
        if self.cycle.response_complete:
            self.cycle.more_body = False
            self._wait_for_next()

    # And this by the answer.

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_answering():
            return
        if self.cycle.more_body:
            # uvicorn would listen for ever to a body that nobody reads.
            self._deadline = self.loop.time() + DRAIN_SECONDS
        else:
            self._wait_for_next()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.time(), self._waiting_bytes()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = None

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or ApiError(400, "We could not parse the HTTP request."))

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_next(self) -> None:
        """The time for a next request that has begun counts from its own beginning."""
        if not self._begun:
            self._deadline = self.loop.time() + KEEP_ALIVE_SECONDS

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._fail(_head_too_large())

    def _fail(self, refusal: ApiError) -> None:
        """Stop the parser, which is calling us; ``send_400_response`` follows."""
        self._refusal = refusal
        raise ValueError(str(refusal))

    def _refuse(self, refusal: ApiError) -> None:
        if self._is_answering():
            # An answer on its way would be torn apart.
            self.transport.abort()
            return
        body = encode(refusal.response())
        head = (
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
            f"x-request-id: req_{uuid.uuid4().hex}\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[refusal.status] + head.encode() + body)
        # A close with bytes unread would take the answer away from the client.
        self._answered = True
        self._deadline = self.loop.time() + DRAIN_SECONDS

    def _expire(self) -> None:
        if self._begun and not self._answered:
            self._refuse(ApiError(408, f"The request's headers took longer than {HEAD_SECONDS:g} seconds."))
        else:
            self.transport.close()

    def _check_reader(self, now: float, since: float, waiting: int) -> None:
        if now - since < READ_SECONDS:
            return
        left = self._waiting_bytes()
        if waiting - left < MIN_BYTES_PER_SECOND * (now - since):
            self.transport.abort()
        else:
            self._unread = now, left

    def _waiting_bytes(self) -> int:
        """Of answers that the client has not acknowledged: a kernel takes and frees them by the megabyte."""
        buffered = self.transport.get_write_buffer_size()
        try:
            sent = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return buffered
        return buffered + int.from_bytes(sent, sys.byteorder)


def _without_upgrade(data: bytes) -> bytes:
    """The head of a request that does not ask to go on in another protocol (HTTP/2, as Java's client and curl do): a
    server may ignore that, but the parser would take the body for the other protocol, and lose it."""
    head, border, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrade:", head) + border + rest


def _head_too_large() -> ApiError:
    return ApiError(431, f"The request line and headers are larger than the maximum of {MAX_HEAD_BYTES:,} bytes.")


async def _crowded(scope: Scope, receive: Receive, send: Send) -> None:
    message = "The server has as many connections as it can hold: try again in a moment, or over fewer connections."
    error = server_error(503, message, "too_many_connections", retry_after=1)
    response = answer(error, scope)
    response.headers["connection"] = "close"
    await response(scope, receive, send)
