"""Who calls: every request is given its caller here, or is not answered."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from gristmill.access.caller import EVERYBODY


class Authentication:
    """Middleware within which ``exchange.caller`` knows who it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["caller"] = EVERYBODY
        await self._app(scope, receive, send)
