"""The application: the resources put together over one batch host."""

from __future__ import annotations

import time

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import gristmill
from gristmill.api import batches, errors, files, health, inference, models, uploads
from gristmill.api.access import Access, AccessRules
from gristmill.api.boundary import Boundary
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
    app.add_middleware(Boundary)
    return app
