"""Who a request comes from."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from gristmill.storage.scope import EVERYTHING, NOTHING, Scope
from gristmill.wire.errors import clip


class Role(StrEnum):
    #: Sees and changes everybody's.
    ADMIN = "admin"
    #: Sees and changes its own.
    USER = "user"
    #: Changes nothing, and sees what belongs to the key it was made for, if any.
    READ_ONLY = "read-only"


class Caller(NamedTuple):
    """``key_id`` is None where no key is asked for, or none is needed."""

    key_id: str | None
    role: Role
    scope: Scope
    name: str = ""


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """Of a request, by its ASGI scope. It is an error to ask before ``api/authentication`` has found it."""
    found: Caller = scope["caller"]
    return found


def address_of(scope: Mapping[str, Any]) -> str | None:
    """Where a request comes from. A proxy on this machine is believed, and so is whoever else there says that it is
    one: it may be any text of any length."""
    return clip(scope["client"][0]) if scope.get("client") else None


#: Where there are no keys.
EVERYBODY = Caller(None, Role.ADMIN, EVERYTHING)
#: Without a key, where it takes one to see anything.
NOBODY = Caller(None, Role.READ_ONLY, NOTHING)
