"""One request to the replicas, from being asked to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.engines.ray.member import Member


class PoolRequest:
    """On its way; ``listen`` is told what the engine says as it says it. ``alone``: by a replica that answers nothing
    else."""

    def __init__(
        self,
        number: int,
        message: bytes,
        prefix: int | None,
        interactive: bool,
        alone: bool,
        listen: Callable[[Any], None] | None,
    ) -> None:
        self.number = number
        self.message = message
        self.prefix = prefix
        self.interactive = interactive
        self.alone = alone
        self.listen = listen
        #: Whether that has been told anything.
        self.heard = False
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.replica: Member | None = None
        #: When it was given to that, on the monotonic clock.
        self.since = 0.0
