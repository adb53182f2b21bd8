"""Values of HTTP that engines and the client both read or show."""

from __future__ import annotations


def shown(url: str) -> str:
    """The address as it may stand in messages and logs: without a name and password."""
    scheme, slashes, rest = url.rpartition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"


def seconds(retry_after: str | None) -> float | None:
    """The value of a Retry-After header in seconds."""
    try:
        return None if retry_after is None else max(float(retry_after), 0.0)
    except ValueError:
        return None  # an HTTP date: our own backoff will do
