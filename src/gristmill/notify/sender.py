"""One attempt to deliver: a POST that follows nothing, reads nothing and does not wait for long."""

from __future__ import annotations

import os
from typing import NamedTuple

import aiohttp

import gristmill
from gristmill.http_values import seconds
from gristmill.notify import target
from gristmill.notify.addresses import AllowedHosts
from gristmill.notify.resolver import CheckedResolver, Lookups
from gristmill.notify.target import TargetRefused

#: From the lookup of the name to the headers of the answer.
ANSWER_SECONDS = 15.0


class SendOutcome(NamedTuple):
    """``status`` of the answer, None where there was none; ``error`` says in a sentence why it is a failure, if it is
    one; ``retry_after`` are the seconds that the target asks for."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None


class Sender:
    """``timeout`` in seconds."""

    def __init__(self, allowed: AllowedHosts, lookups: Lookups | None = None, timeout: float = ANSWER_SECONDS) -> None:
        self._allowed = allowed
        self._lookups = lookups or Lookups()
        self._timeout = timeout

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> SendOutcome:
        """Never raises for what a target does."""
        try:
            found = target.read(url)
            # Again: the server may have been started since with other hosts allowed.
            target.check(found, self._allowed)
            return await self._post(found.url, headers, body)
        except TargetRefused as refused:
            return SendOutcome(None, f"Nothing is sent there: {refused}")
        except TimeoutError:
            return SendOutcome(None, f"There was no answer within {self._timeout:g} seconds.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return SendOutcome(None, _reason(error))

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> SendOutcome:
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self._lookups, self._allowed), use_dns_cache=False, force_close=True
        )
        async with (
            # No proxy of the environment, no cookies, no connection that is used again: each attempt is checked anew.
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.post(url, data=body, headers=_FIXED | headers, allow_redirects=False) as response,
        ):
            # Of the answer's body nothing is wanted: leaving closes the connection.
            status, retry_after = response.status, seconds(response.headers.get("Retry-After"))
            response.close()
        return SendOutcome(status, _failure(status), retry_after)


_FIXED = {"Content-Type": "application/json", "User-Agent": f"Gristmill/{gristmill.__version__}", "Accept": "*/*"}


def _failure(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"It answered {status}: redirects are not followed. Use the URL that it leads to."
    return f"It answered {status}."


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return f"Its certificate is not accepted: {_certificate(error)}."
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "Its name cannot be resolved."
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.errno or 0
        return f"There is no connection: {os.strerror(number) if number > 0 else 'it failed'}."
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "It closed the connection without an answer."
    if isinstance(error, aiohttp.ClientResponseError):
        return "What it answered is not HTTP."
    return f"The connection broke: {type(error).__name__}."


def _certificate(error: Exception) -> str:
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    return getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or type(cause).__name__
