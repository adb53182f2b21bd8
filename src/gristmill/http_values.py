"""Values of HTTP that engines and the client both read or show."""

from __future__ import annotations

import os
from urllib.parse import quote, urlsplit

from gristmill.printable import printable
from gristmill.user_error import UserError


def shown(url: str) -> str:
    """The address as it may stand in messages and logs: without a name and password."""
    scheme, slashes, rest = url.rpartition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"


def api_base(address: str) -> str:
    """The base URL of a server's API: with ``/v1`` where no path is given, ``http`` where no scheme is, and no slash at
    the end. Another path is left as it is: not every API is at ``/v1``. Raises ValueError for what is no address."""
    given = address.strip()
    parts = urlsplit(given if "://" in given else f"http://{given}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(address)
    parts.port  # noqa: B018 - raises ValueError for what is no port
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def object_path(collection: str, object_id: str, *more: str) -> str:
    """Of an object on the server, such as /batches/batch_1/pause. Raises UserError for an id that would lead elsewhere,
    such as none."""
    if not object_id.strip(".") or "/" in object_id:
        raise UserError(f"'{printable(object_id)}' is no id of one of the server's {collection.replace('_', ' ')}.")
    return "/".join(("", collection, quote(object_id, safe=""), *more))


def seconds(retry_after: str | None) -> float | None:
    """The value of a Retry-After header in seconds."""
    try:
        return None if retry_after is None else max(float(retry_after), 0.0)
    except ValueError:
        return None  # an HTTP date: our own backoff will do


def sent_key(given: str | None = None) -> str:
    """The access key for the server that a user names: ``given``, or GRISTMILL_API_KEY; empty for none. Raises
    UserError for one that no request could carry."""
    key = (given if given is not None else os.environ.get("GRISTMILL_API_KEY", "")).strip()
    if not all("!" <= character <= "~" for character in key):
        raise UserError("The API key (GRISTMILL_API_KEY) holds a space, a line break or a letter that no key has.")
    return key
