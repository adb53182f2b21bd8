"""``Idempotency-Key``: a creating request that is sent again, because its answer was lost, creates nothing more.

The key is stored in the transaction that stores what the request creates, with the answer: there is no moment at which
one is there without the other, and of requests at the same time one creates and the others get its answer.
"""

from __future__ import annotations

import time

from fastapi import Request, Response

from gristmill.storage.errors import KeyUsed
from gristmill.storage.records import UsedKey
from gristmill.wire.errors import ApiError

HEADER = "Idempotency-Key"
MAX_KEY = 255


def idempotency_key(request: Request) -> str | None:
    """The request's key, if it has one. Raises ApiError 400."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    key = given[0]
    if len(given) > 1 or not 1 <= len(key) <= MAX_KEY or not (key.isascii() and key.isprintable()):
        message = f"Invalid '{HEADER}': expected one header of 1 to {MAX_KEY} printable ASCII characters."
        raise ApiError(400, message, param=HEADER, code="invalid_value")
    return key


def used_key(request: Request, body: bytes) -> UsedKey | None:
    """The key of this request, where it has one; the answer is still to be added. ``body`` are the bytes that came, or
    others that are the same for the same request."""
    key = idempotency_key(request)
    return None if key is None else UsedKey.of(key, f"{request.method} {request.url.path}", body, int(time.time()))


def first_answer(repeated: KeyUsed) -> Response:
    """What the same request was answered before. Raises ApiError 400 where it was another request."""
    if repeated.given.request != repeated.first.request:
        message = (
            f"The {HEADER} '{repeated.first.key}' was used for another request in the last 24 hours. Send a request "
            "again exactly as it was, or use a new key."
        )
        raise ApiError(400, message, param=HEADER, code="idempotency_key_reused")
    return Response(repeated.first.answer, media_type="application/json")
