"""Who looks at a page, and what they may see: the one place where pages get at batches."""

from __future__ import annotations

from fastapi import Request

from gristmill.batches.host import BatchHost


def host(request: Request) -> BatchHost:
    found: BatchHost = request.app.state.host
    return found
