"""All pages together."""

from __future__ import annotations

from fastapi import APIRouter

from gristmill.web import assets, batch, overview, results

router = APIRouter(include_in_schema=False)
for _each in (overview, batch, results, assets):
    router.include_router(_each.router)
