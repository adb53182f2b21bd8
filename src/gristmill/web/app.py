"""All pages together."""

from __future__ import annotations

from fastapi import APIRouter

from gristmill.web import assets, batch, overview

router = APIRouter(include_in_schema=False)
for _each in (overview, batch, assets):
    router.include_router(_each.router)
