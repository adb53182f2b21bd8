"""All pages together."""

from __future__ import annotations

from fastapi import APIRouter

from gristmill.web import assets, batch, login, new_batch, overview, ranking, results, scoring

router = APIRouter(include_in_schema=False)
for _each in (overview, batch, login, results, new_batch, scoring, ranking, assets):
    router.include_router(_each.router)
