"""Keeps out what breaks the Host and Origin rules (``access/host_rules.py``)."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gristmill.access.host_rules import AccessRules
from gristmill.api.errors import answer
from gristmill.telemetry.log import get_logger

log = get_logger(__name__)


class Access:
    """Middleware that answers requests which break the rules with a 403."""

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._rules.refusal(Headers(scope=scope))) is not None:
            log.info("refused", code=refusal.body.code, given=refusal.body.message)
            await answer(refusal, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)
