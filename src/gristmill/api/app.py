"""The application: the resources put together over one batch host."""

from __future__ import annotations

import time

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from gristmill.access.gate import Gate
from gristmill.access.host_rules import AccessRules
from gristmill.api import (
    batches,
    description,
    errors,
    files,
    health,
    inference,
    message_batches,
    messages,
    models,
    responses,
    uploads,
    webhooks,
)
from gristmill.api.access import Access
from gristmill.api.authentication import Authentication
from gristmill.api.boundary import Boundary
from gristmill.batches.host import BatchHost
from gristmill.inference.background_responses import BackgroundResponses
from gristmill.inference.recent_items import RecentItems
from gristmill.scoring.jobs.keeper import ScoringJobs
from gristmill.web import app as web
from gristmill.web.dashboard import Dashboard


def create_app(host: BatchHost, rules: AccessRules, gate: Gate | None = None) -> FastAPI:
    """An application over a host that has been started; without a ``gate``, everybody may call."""
    # FastAPI's own description knows no struct, and its pages load scripts from elsewhere.
    app = FastAPI(openapi_url=None)
    app.state.host = host
    app.state.gate = gate
    app.state.recent_items = RecentItems()
    app.state.background_responses = BackgroundResponses(app.state.recent_items)
    app.state.started_at = int(time.time())
    app.state.dashboard = Dashboard(host)
    app.state.scoring_jobs = ScoringJobs(host)
    errors.install(app)
    app.state.resources = [
        each.router
        for each in (files, uploads, batches, inference, responses, messages, message_batches, webhooks, models, health)
    ]
    for router in (*app.state.resources, description.router, web.router):
        app.include_router(router)
    # The last one added stands outermost. A browser asks without a key whether it may send one (CORS).
    app.add_middleware(Authentication, gate=gate, rules=rules)
    if rules.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(rules.origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "request-id"],
        )
    app.add_middleware(Access, rules=rules)
    app.add_middleware(Boundary)
    return app
