"""Who calls: every request is given its caller here, or is not answered.

A key comes as a bearer token or, as Anthropic's SDK sends it, in ``x-api-key``; a browser that has logged in has a
cookie instead. What changes something is written to the audit log, but for requests that only ask the engine.
"""

from __future__ import annotations

import time
from urllib.parse import quote

from fastapi.responses import RedirectResponse
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gristmill.access import refusals
from gristmill.access.caller import EVERYBODY, NOBODY, Caller, Role, address_of
from gristmill.access.gate import Gate
from gristmill.access.host_rules import AccessRules
from gristmill.access.logins import COOKIE
from gristmill.access.open_paths import is_open
from gristmill.api.errors import answer
from gristmill.storage.errors import StorageError
from gristmill.storage.records import AuditEntry
from gristmill.telemetry.log import get_logger
from gristmill.web.problem import wants_page
from gristmill.wire.errors import ApiError, clip, server_error

log = get_logger(__name__)

#: What goes on for longer, such as a stream of events, a download or an upload, ends with its key or login: seconds.
_LOOKED_AT_AGAIN = 1.0
_READING = ("GET", "HEAD", "OPTIONS")
#: Tags of routes that only ask the engine: as many as there are, and nothing is stored of them.
_ONLY_ASKING = {"inference", "responses", "messages"}


class Authentication:
    """Middleware within which ``exchange.caller`` knows who it is. ``gate`` None: nobody is asked for a key."""

    def __init__(self, app: ASGIApp, gate: Gate | None, rules: AccessRules) -> None:
        self._app = app
        self._gate = gate
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._gate is None:
            scope["caller"] = EVERYBODY
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Nothing else is served; without a caller nothing could be.
            await self._app(scope, receive, send)
            return
        if is_open(scope["path"]):
            if self._is_foreign_form(scope):
                await self._refuse(refusals.foreign_page(), scope, receive, send)
                return
            scope["caller"] = NOBODY
            await self._app(scope, receive, send)
            return
        try:
            caller = scope["caller"] = await self._caller(self._gate, scope)
        except ApiError as refusal:
            await self._refuse(refusal, scope, receive, send)
            return
        except StorageError as error:
            log.error("keys cannot be looked up", reason=str(error))
            unknown = server_error(503, "The server cannot look up keys now: its log says why.", retry_after=5)
            await answer(unknown, scope)(scope, receive, send)
            return
        await self._let_in(self._gate, caller, scope, receive, send)

    async def _caller(self, gate: Gate, scope: Scope) -> Caller:
        """Raises ApiError where there is none, or where it may not do this."""
        headers = Headers(scope=scope)
        changes = scope["method"] not in _READING
        caller = await _who(gate, headers)
        if changes and _presented(headers) is None and not self._rules.is_own_page(headers):
            raise refusals.foreign_page()
        if changes and caller.role is Role.READ_ONLY:
            raise refusals.read_only(caller)
        return caller

    def _is_foreign_form(self, scope: Scope) -> bool:
        """Whether another's page, even one that may call, logs its visitor in (as somebody else) or out."""
        headers = Headers(scope=scope)
        return scope["method"] not in _READING and "origin" in headers and not self._rules.is_own_page(headers)

    async def _refuse(self, refusal: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        log.info("refused", code=refusal.body.code, address=address_of(scope), path=clip(scope["path"]))
        if refusal.status == 401 and scope["method"] == "GET" and wants_page(scope):
            here = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
            await RedirectResponse(f"/login?next={quote(here, safe='/')}", 303)(scope, receive, send)
            return
        response = answer(refusal, scope)
        if refusal.status == 401:
            response.headers["www-authenticate"] = 'Bearer realm="Gristmill"'
        await response(scope, receive, send)

    async def _let_in(self, gate: Gate, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        status: int | None = None
        looked_at = time.monotonic()

        async def look_again() -> None:
            """Raises ApiError where the key or the login has ended."""
            nonlocal looked_at
            if time.monotonic() - looked_at >= _LOOKED_AT_AGAIN:
                await _who(gate, Headers(scope=scope))
                looked_at = time.monotonic()

        async def received() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                await look_again()
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message.get("more_body"):
                try:
                    await look_again()
                except ApiError:
                    log.info("an answer ends with its key", key=caller.key_id, path=clip(scope["path"]))
                    raise ClientDisconnect from None
            await send(message)

        try:
            await self._app(scope, received, watched)
        finally:
            if status is not None and scope["method"] not in _READING:
                await _note(gate, caller, scope, status)


async def _who(gate: Gate, headers: Headers) -> Caller:
    """Raises ApiError where there is nobody, or nobody any more."""
    presented, token = _presented(headers), _token(headers)
    if presented is not None:
        caller = await gate.keyring.caller(presented)
        if caller is None:
            raise refusals.wrong_key(presented)
    elif token is not None:
        caller = await gate.logins.caller(token)
        if caller is None:
            raise refusals.session_over()
    else:
        raise refusals.no_key()
    return caller


async def _note(gate: Gate, caller: Caller, scope: Scope, status: int) -> None:
    route = scope.get("route")
    if route is None or _ONLY_ASKING.intersection(route.tags):
        return
    target = next(iter(scope.get("path_params", {}).values()), None)
    entry = AuditEntry(
        at=int(time.time()),
        action=f"{scope['method']} {route.path_format}",
        key_id=caller.key_id,
        target=None if target is None else clip(str(target)),
        address=address_of(scope),
        status=status,
    )
    try:
        await gate.audit_log.add(entry)
    except Exception as error:
        # It has been done and answered.
        log.error("the audit log cannot be written", action=entry.action, key=entry.key_id, exc_info=error)


def _presented(headers: Headers) -> str | None:
    """The key that came with a request. Other kinds of authorization are for proxies on the way."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return bearer or headers.get("x-api-key", "").strip() or None


def _token(headers: Headers) -> str | None:
    return cookie_parser(headers.get("cookie", "")).get(COOKIE)
