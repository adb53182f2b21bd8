"""Gristmill: huge batches of LLM requests that share most of their prompt, on machines you own.

From Python: ``gristmill.score`` for the rows of a frame, ``gristmill.Client`` for batches on a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.client import Client as Client
    from gristmill.scoring.frames import score as score

__version__ = "0.1.0"
__all__ = ["Client", "__version__", "score"]


def __getattr__(name: str) -> Any:
    """Imported when asked for: the command line must not wait for tables."""
    if name == "Client":
        from gristmill.client import Client

        return Client
    if name == "score":
        from gristmill.scoring.frames import score

        return score
    raise AttributeError(f"module 'gristmill' has no attribute {name!r}")
