"""What ``/health`` and ``/ready`` say; Gristmill's own."""

from __future__ import annotations

import msgspec


class Health(msgspec.Struct):
    status: str = "ok"


class Readiness(msgspec.Struct):
    """``status`` is "ready", or "unavailable" for the ``reason``."""

    status: str
    disk_free_bytes: int
    reason: str | msgspec.UnsetType = msgspec.UNSET
