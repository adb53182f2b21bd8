"""Engines of several servers, each of which can be given one request and nothing else."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from gristmill.engines.protocol import AnyAnswer, AnyRequest, Engine


class NotYet(Exception):
    """The server that is to answer a request alone has others to answer first, and is kept for it for some seconds: it
    was not begun, and is to be asked again at once, if it is still to be asked."""


@runtime_checkable
class Isolates(Protocol):
    """What an engine is besides, if a crash of one of its servers leaves the others as they are."""

    async def ask_alone(self, request: AnyRequest) -> AnyAnswer:
        """As ``Engine.complete``, by a server that has no other request from when it begins with this one until it has
        ended, whoever else uses that server. So a crash of it is this request's. ``Capabilities.alone_slots`` says how
        many can be asked so at a time; one more waits. Raises NotYet as well, after a second or so of waiting."""
        ...


def isolates(engine: Engine) -> bool:
    """Whether it can, as it is set up."""
    return engine.capabilities.alone_slots > 0 and isinstance(engine, Isolates)
