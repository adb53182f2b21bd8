"""Resolving the name of a webhook's host, to addresses that it may have."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

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


async def checked_addresses(lookups: Lookups, allowed: AllowedHosts, host: str, port: int) -> list[str]:
    """The addresses of a host that may be connected to, as the system orders them. Who connects to one of them, and not
    to the name, is led nowhere by a name that resolves differently the next time (DNS rebinding).

    Raises TargetRefused where none is allowed, OSError where it has none."""
    if as_address(host) is not None:
        found = [host]
    else:
        try:
            answered = await lookups.addresses(host, port)
        except OSError:
            raise OSError(None, "Its name cannot be resolved.") from None
        found = [str(where[0]) for *_, where in answered]
    any_address = allowed.name(host, port)
    checked = [
        each for each in found if (address := as_address(each)) and (any_address or allowed.reaches(address, port))
    ]
    if not checked:
        raise not_public(host)
    return checked
