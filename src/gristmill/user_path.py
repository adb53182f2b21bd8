"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path


def user_path(text: str) -> Path:
    """Absolute. ``~name`` stays as it is where this machine has no user of that name."""
    path = Path(text)
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        return path.absolute()


def is_there(path: Path) -> bool:
    """False also for what may not be looked at, and for no path at all, such as one that is too long."""
    try:
        return path.exists()
    except OSError:
        return False
