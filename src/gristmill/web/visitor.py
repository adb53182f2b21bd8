"""Who looks at a page, and what they may see: the one place where pages get at batches."""

from __future__ import annotations

from fastapi import Request

from gristmill.access.caller import caller_of
from gristmill.batches.scoped_host import ScopedHost


def host(request: Request) -> ScopedHost:
    """As the visitor has it."""
    return ScopedHost(request.app.state.host, caller_of(request.scope).scope)
