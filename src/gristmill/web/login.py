"""``/login``: a key for a cookie; and ``/logout``."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gristmill.access.caller import address_of
from gristmill.access.gate import Gate
from gristmill.access.logins import COOKIE, LIFETIME_SECONDS
from gristmill.web.page import page
from gristmill.wire.errors import ApiError, too_large

router = APIRouter()

_MAX_FORM_BYTES = 8 * 1024


@router.get("/login")
async def login_page(request: Request) -> Response:
    found, token = _gate(request), request.cookies.get(COOKIE)
    caller = None if found is None or token is None else await found.logins.caller(token)
    wanted = _local(request.query_params.get("next", ""))
    name = "" if caller is None else f"{caller.name} ({caller.role})"
    return _page(asks=found is not None, name=name, wanted=wanted, problem="", status=200)


@router.post("/login")
async def log_in(request: Request) -> Response:
    found = _gate(request)
    if found is None:
        return RedirectResponse("/", 303)
    form = await _form(request)
    wanted = _local(form.get("next", ""))
    try:
        login = await found.logins.log_in(form.get("key", "").strip(), address_of(request.scope))
    except ApiError as refusal:
        problem = "That is not a key of this server, or it was revoked." if refusal.status == 401 else str(refusal)
        answer = _page(asks=True, name="", wanted=wanted, problem=problem, status=refusal.status)
        if refusal.retry_after is not None:
            answer.headers["retry-after"] = str(refusal.retry_after)
        return answer
    answer = RedirectResponse(wanted, 303)
    # Strict: no other page can send it. Over plain HTTP, it is as readable on the way as the key itself.
    answer.set_cookie(
        COOKIE,
        login.token,
        max_age=LIFETIME_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
async def log_out(request: Request) -> Response:
    found, token = _gate(request), request.cookies.get(COOKIE)
    if found is not None and token is not None:
        await found.logins.log_out(token)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def _gate(request: Request) -> Gate | None:
    found: Gate | None = request.app.state.gate
    return found


def _page(*, asks: bool, name: str, wanted: str, problem: str, status: int) -> Response:
    return page("login", status=status, here="login", asks=asks, name=name, wanted=wanted, problem=problem)


def _local(path: str) -> str:
    """Where to go after the login: a page of this server, whatever a link to the login page says."""
    ours = path.startswith("/") and not path.startswith("//") and path.isprintable() and "\\" not in path
    return path if ours else "/"


async def _form(request: Request) -> dict[str, str]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise too_large("That is no login form.")
    given = parse_qs(bytes(body).decode("latin-1"), encoding="utf-8", errors="replace")
    return {name: values[0] for name, values in given.items()}
