"""Connections to one server, which are used together and, after one of them has broken, no more."""

from __future__ import annotations

import asyncio

import aiohttp

#: Well below the two seconds (gunicorn) or five (uvicorn, cpp-httplib) after which servers close an idle connection, so
#: that no request is sent into one that is just being closed: that looks like a crash.
_KEEP_ALIVE = 1.0


class Connections:
    """``proven`` once the server has shown on one of them that it is there; ``failure`` says why it has not.

    ``socket``: the path of the Unix socket that the server listens at, instead of an address. Make it inside a running
    event loop. ``enter`` and ``leave`` for each request; ``close`` it, or ``lose`` it.
    """

    def __init__(self, headers: dict[str, str], proven: bool = False, socket: str | None = None) -> None:
        connector: aiohttp.BaseConnector
        if socket is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE)
        else:
            connector = aiohttp.UnixConnector(socket, limit=0, keepalive_timeout=_KEEP_ALIVE)
        # The dispatcher limits what is in flight and for how long; closing the connection cancels on the server.
        self.session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0),
            headers={"Content-Type": "application/json", **headers},
        )
        self.proven = proven
        self.failure: str | None = None
        #: Held by the one request that asks for the proof; the others wait for what comes of it.
        self.proving = asyncio.Lock()
        self._users = 0
        self._lost = False

    @property
    def closed(self) -> bool:
        return self.session.closed

    def enter(self) -> None:
        self._users += 1

    async def leave(self) -> None:
        self._users -= 1
        await self._close_if_unused()

    async def lose(self) -> None:
        """No more requests will come; those under way go on."""
        self._lost = True
        await self._close_if_unused()

    async def close(self) -> None:
        await self.session.close()

    async def _close_if_unused(self) -> None:
        if self._lost and self._users == 0:
            await self.session.close()
