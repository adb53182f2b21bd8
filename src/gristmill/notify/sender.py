"""One attempt to deliver: a POST that follows nothing, reads little and does not wait for long."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any, NamedTuple

import h11
from yarl import URL

import gristmill
from gristmill.http_values import seconds
from gristmill.notify import target
from gristmill.notify.addresses import AllowedHosts
from gristmill.notify.resolver import Lookups, checked_addresses
from gristmill.notify.target import Target, TargetRefused

#: From the lookup of the name to the headers of the answer; and of that, to connect to one of several addresses.
ANSWER_SECONDS = 15.0
_CONNECT_SECONDS = 5.0
#: Of an answer, with all the provisional ones (1xx) before it.
_MAX_ANSWER_BYTES = 64 * 1024
_CHUNK_BYTES = 16 * 1024


class SendOutcome(NamedTuple):
    """``status`` of the answer, None where there was none; ``error`` says in a sentence why it is a failure, if it is
    one; ``retry_after`` are the seconds that the target asks for."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None


class Sender:
    """``timeout`` in seconds.

    It has no connections to keep and no proxies to ask, so it speaks HTTP by h11 over a connection of its own: to the
    very address that was checked, and with a bound for what a target may have it read.
    """

    def __init__(self, allowed: AllowedHosts, lookups: Lookups | None = None, timeout: float = ANSWER_SECONDS) -> None:
        self._allowed = allowed
        self._lookups = lookups or Lookups()
        self._timeout = timeout
        self._tls = ssl.create_default_context()

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> SendOutcome:
        """Never raises for what a target does."""
        try:
            async with asyncio.timeout(self._timeout):
                found = target.read(url)
                # Again: the server may have been started since with other hosts allowed.
                target.check(found, self._allowed)
                return await self._post(found, headers, body)
        except TargetRefused as refused:
            return SendOutcome(None, f"Nothing is sent there: {refused}")
        except TimeoutError:
            return SendOutcome(None, f"There was no answer within {self._timeout:g} seconds.")
        except h11.RemoteProtocolError:
            return SendOutcome(None, "What it answered is not HTTP.")
        except OSError as error:
            return SendOutcome(None, _reason(error))

    async def _post(self, found: Target, headers: dict[str, str], body: bytes) -> SendOutcome:
        reader, writer = await self._connect(found)
        try:
            connection = h11.Connection(h11.CLIENT)
            url = URL(found.url)
            fields = {"Host": url.host_port_subcomponent or "", **_FIXED, "Content-Length": str(len(body)), **headers}
            request = h11.Request(method="POST", target=url.raw_path_qs, headers=list(fields.items()))
            writer.write((connection.send(request) or b"") + (connection.send(h11.Data(data=body)) or b""))
            answer = await _answer(connection, reader)
        finally:
            # Of the answer's body nothing is wanted.
            writer.close()
        retry_after = dict(answer.headers).get(b"retry-after", b"").decode("latin-1")
        return SendOutcome(answer.status_code, _failure(answer.status_code), seconds(retry_after or None))

    async def _connect(self, found: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises TargetRefused, and OSError where no address takes a connection."""
        tls: dict[str, Any] = {}
        if found.url.startswith("https:"):
            tls = {"ssl": self._tls, "server_hostname": found.host.removesuffix("."), "ssl_shutdown_timeout": 1.0}
        addresses = await checked_addresses(self._lookups, self._allowed, found.host, found.port)
        while True:
            address = addresses.pop(0)
            try:
                async with asyncio.timeout(_CONNECT_SECONDS if addresses else None):
                    # Numeric, so that nothing is resolved again.
                    return await asyncio.open_connection(address, found.port, limit=_CHUNK_BYTES, **tls)
            except (OSError, TimeoutError):
                if not addresses:
                    raise


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Response:
    """Raises RemoteProtocolError, and OSError where the connection ends too early."""
    received = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is not h11.NEED_DATA:
            continue
        data = await reader.read(_CHUNK_BYTES)
        if not data and not received:
            raise ConnectionResetError(None, "It closed the connection without an answer.")
        received += len(data)
        if received > _MAX_ANSWER_BYTES:
            raise h11.RemoteProtocolError("the answer does not begin")
        connection.receive_data(data)


_FIXED = {"Content-Type": "application/json", "User-Agent": f"Gristmill/{gristmill.__version__}", "Connection": "close"}


def _failure(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"It answered {status}: redirects are not followed. Use the URL that it leads to."
    return f"It answered {status}."


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"Its certificate is not accepted: {error.verify_message}."
    if isinstance(error, ssl.SSLError):
        return f"There is no secure connection: {error.reason or 'it broke'}."
    if error.errno is not None and error.errno > 0:
        return f"There is no connection: {os.strerror(error.errno)}."
    return error.strerror or "The connection broke."
