"""One request to the replicas, from being asked to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.ray import messages
from gristmill.engines.ray.messages import Alone, ToReplica

if TYPE_CHECKING:
    from gristmill.engines.ray.member import Member


def encoded(message: ToReplica, alone: bool) -> bytes:
    """Raises EngineError for what msgpack cannot hold."""
    try:
        number, data = messages.encode(message)
        return messages.encode(Alone(number, data))[1] if alone else data
    except (ValueError, OverflowError, RecursionError) as error:
        sentence = f"The request cannot be handed to a replica: {error}."
        raise EngineError(ErrorKind.INVALID_REQUEST, sentence, code="invalid_value") from None


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
