"""Why a caller is refused, in the words of the OpenAI API; ``api/errors.py`` says the same in Anthropic's. Pure."""

from __future__ import annotations

from gristmill.access.api_key import masked
from gristmill.access.caller import Caller
from gristmill.storage.errors import OverLimit
from gristmill.wire.errors import ApiError

_WHERE = "Keys are made on the server's machine, with 'gristmill admin key add NAME'."


def no_key() -> ApiError:
    message = (
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        f"(i.e. Authorization: Bearer YOUR_KEY), or in an x-api-key header. {_WHERE}"
    )
    return ApiError(401, message, code="invalid_api_key")


def wrong_key(given: str) -> ApiError:
    """A revoked one, too: who has it learns nothing about it."""
    return ApiError(401, f"Incorrect API key provided: {masked(given)}. {_WHERE}", code="invalid_api_key")


def session_over() -> ApiError:
    return ApiError(401, "You are not logged in any more: log in at /login.", code="invalid_api_key")


def foreign_page() -> ApiError:
    message = "With a login, only this server's own pages may change something: send a key instead."
    return ApiError(403, message, param="origin", code="origin_not_allowed")


def read_only(caller: Caller) -> ApiError:
    message = f"You have insufficient permissions for this operation: the key '{caller.name}' is read-only."
    return ApiError(403, message, code="missing_scope")


def too_many_logins(seconds: int) -> ApiError:
    message = f"Too many keys that are not right: try again in {seconds} seconds."
    return ApiError(429, message, code="rate_limit_exceeded", type="rate_limit_error", retry_after=seconds)


def over_limit(over: OverLimit) -> ApiError:
    """Waiting a moment, as clients do by themselves, does not help."""
    match over.what:
        case "bytes":
            message = (
                f"You exceeded your current quota: files of this key may take {over.limit:,} bytes, they take "
                f"{over.used:,}, and {over.more:,} more were sent. Delete files that you do not need any more."
            )
            return ApiError(429, message, type="insufficient_quota", code="insufficient_quota", retry=False)
        case "batches":
            message = (
                f"Too many batches: this key may have {over.limit:,} that have not ended, and has {over.used:,}. "
                "Please try again once some in_progress batches have been completed."
            )
        case _:
            message = enqueued_rows(over.limit, over.used, over.more)
    return ApiError(429, message, type="rate_limit_error", code="rate_limit_exceeded", retry=False)


def enqueued_rows(limit: int, used: int, more: int) -> str:
    return (
        f"Enqueued request limit reached for this key. Limit: {limit:,} enqueued requests; {used:,} are enqueued, and "
        f"this batch has {more:,}. Please try again once some in_progress batches have been completed."
    )
