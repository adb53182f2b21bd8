"""``/assets``: style sheets and scripts from the package, of ours and of others (``assets/vendor/versions.json``).

A page names each with a hash of its bytes, so that a browser may keep it for ever and never shows an old one.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from gristmill.web.headers import SECURITY_HEADERS

router = APIRouter(prefix="/assets")

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}
_FOR_EVER = "public, max-age=31536000, immutable"


class Asset(NamedTuple):
    data: bytes
    media_type: str
    digest: str


@functools.cache
def _assets() -> dict[str, Asset]:
    """By name. Nothing else can be asked for, whatever a path says."""
    package = files("gristmill")
    folder = package / "web" / "assets"
    found = [package / "page.css", *folder.iterdir(), *(folder / "vendor").iterdir()]
    return {each.name: _read(each) for each in found if each.name.rpartition(".")[2] in _TYPES}


def _read(file: Traversable) -> Asset:
    data = file.read_bytes()
    return Asset(data, _TYPES[file.name.rpartition(".")[2]], hashlib.sha256(data).hexdigest()[:16])


def address(name: str) -> str:
    """For pages. Raises KeyError for what there is not."""
    return f"/assets/{name}?v={_assets()[name].digest}"


@router.get("/{name}")
async def asset(request: Request, name: str) -> Response:
    found = _assets().get(name)
    if found is None:
        raise HTTPException(404)
    current = request.query_params.get("v") == found.digest
    headers = {**SECURITY_HEADERS, "cache-control": _FOR_EVER if current else "no-cache"}
    return Response(found.data, headers=headers, media_type=found.media_type)
