"""Resolving the name of a webhook's host, to addresses that it may have."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from gristmill.notify.addresses import AllowedHosts, as_address
from gristmill.notify.target import not_public

#: As ``socket.getaddrinfo`` answers.
Lookup = Callable[[str, int], list[Any]]
#: Lookups at a time. One that is given up goes on: the system's resolver cannot be interrupted.
_LOOKUPS = 32


def system_lookup(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)


class Lookups:
    """Lookups in threads of their own: a name server that does not answer holds up no other work, nor the end of the
    process."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        self._lookup = lookup
        self._places = asyncio.Semaphore(_LOOKUPS)

    async def addresses(self, host: str, port: int) -> list[Any]:
        """Raises OSError."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def work() -> None:
            result: list[Any] = []
            failure: OSError | None = None
            try:
                result = self._lookup(host, port)
            except OSError as error:
                failure = error
            except UnicodeError as error:
                failure = OSError(str(error))
            try:
                loop.call_soon_threadsafe(done, result, failure)
            except RuntimeError:
                return  # The loop has ended, and whoever asked with it.

        def done(result: list[Any], failure: OSError | None) -> None:
            self._places.release()
            if found.cancelled():
                return
            if failure is not None:
                found.set_exception(failure)
            else:
                found.set_result(result)

        try:
            threading.Thread(target=work, name="webhook-lookup", daemon=True).start()
        except RuntimeError as error:
            self._places.release()
            raise OSError(f"no thread can be started: {error}") from None
        return await found


class CheckedResolver(AbstractResolver):
    """For one request: the connection goes to an address that it has answered, and it answers only allowed ones, so
    that a name which resolves differently the next time (DNS rebinding) leads nowhere."""

    def __init__(self, lookups: Lookups, allowed: AllowedHosts) -> None:
        self._lookups = lookups
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises TargetRefused where none of its addresses is allowed, OSError where it has none."""
        any_address = self._allowed.name(host, port)
        found = await self._lookups.addresses(host, port)
        results = []
        for kind, _, protocol, _, where in found:
            address = as_address(str(where[0]))
            if address is not None and (any_address or self._allowed.reaches(address, port)):
                results.append(
                    ResolveResult(
                        hostname=host,
                        host=str(where[0]),
                        port=port,
                        family=kind,
                        proto=protocol,
                        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                    )
                )
        if found and not results:
            raise not_public(host)
        if not results:
            raise OSError(None, "it has no address")
        return results

    async def close(self) -> None:
        pass
