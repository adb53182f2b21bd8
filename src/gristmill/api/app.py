"""The application: the resources put together over one batch host."""

from __future__ import annotations

import time
import uuid

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import gristmill
from gristmill.api import batches, errors, files, health, inference, models, uploads
from gristmill.api.access import Access, AccessRules
from gristmill.batches.host import BatchHost


def create_app(host: BatchHost, rules: AccessRules) -> FastAPI:
    """An application over a host that has been started."""
    app = FastAPI(title="Gristmill", version=gristmill.__version__)
    app.state.host = host
    app.state.started_at = int(time.time())
    errors.install(app)
    for resource in (files, uploads, batches, inference, models, health):
        app.include_router(resource.router)
    # The last one added stands outermost.
    if rules.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(rules.origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id"],
        )
    app.add_middleware(Access, rules=rules)
    app.add_middleware(RequestIds)
    return app


class RequestIds:
    """Gives every answer an ``x-request-id``, which clients put into their error messages."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = f"req_{uuid.uuid4().hex}"
            await send(message)

        await self._app(scope, receive, send_with_id)
