"""What is answered to everybody, also by a server that asks for keys."""

from __future__ import annotations

#: For supervisors and load balancers, and what is needed to know how to call, or to log in.
OPEN_PATHS = frozenset({"/health", "/ready", "/openapi.json", "/docs", "/login", "/logout"})
_OPEN_FOLDER = "/assets/"


def is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(_OPEN_FOLDER)
