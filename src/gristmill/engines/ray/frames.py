"""What our process and the driver process say to each other: the length, then msgpack."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gristmill.engines.ray.messages import ReplicaFacts
from gristmill.engines.ray.options import ReplicaSettings
from gristmill.length_prefix import with_length

BEAT_SECONDS = 1.0


class Patience(msgspec.Struct, frozen=True):
    """Seconds. A replica that does not answer a call for ``silence`` hangs and is ended, or for ``starting`` while its
    engine starts. ``abandoned``: a replica that nobody has used for so long ends by itself."""

    silence: float = 15.0
    starting: float = 300.0
    abandoned: float = 600.0

    @property
    def stale(self) -> float:
        """A request that has been on its way to a replica for so long is not begun any more: whoever asked, or the
        replica, has hung, and soon others are asked the same, if they are not already."""
        return self.silence * 2 / 3


class Connect(msgspec.Struct, tag=True, frozen=True):
    """Always the first frame to the driver. ``address``: empty for a cluster of its own. ``client``: who uses the
    replicas."""

    client: str
    address: str
    replica: ReplicaSettings
    replicas: int
    keep: bool
    placement_wait: float
    patience: Patience


class Send(msgspec.Struct, tag=True, frozen=True):
    """A group of messages for a replica; dropped where ``session`` is over. ``since``: when the first of them was ready
    to go, on the machine's monotonic clock, which is the same in all processes."""

    replica: str
    session: str
    group: bytes
    since: float


class Leave(msgspec.Struct, tag=True, frozen=True):
    """The driver ends, and with it the replicas that nobody else uses, unless they are to be kept."""


class Joined(msgspec.Struct, tag=True, frozen=True):
    """A replica is ready; each time with a new session."""

    replica: str
    session: str
    facts: ReplicaFacts


class Left(msgspec.Struct, tag=True, frozen=True):
    """A replica answers no more, and what it had is lost; another session may come. ``died``: its process is gone with
    the engine in it, or had to be ended, so that what it was answering may be why."""

    replica: str
    session: str
    why: str
    died: bool


class Alive(msgspec.Struct, tag=True, frozen=True):
    """The driver does not hang; every ``BEAT_SECONDS`` once it is connected."""


class Answers(msgspec.Struct, tag=True, frozen=True):
    replica: str
    session: str
    group: bytes


class Trouble(msgspec.Struct, tag=True, frozen=True):
    """Why a replica is not there, as a sentence; ``replica`` is empty where it is the same for all. ``final``: it will
    be so at the next try, too, so that a start need not wait for more."""

    replica: str
    sentence: str
    final: bool


class Waiting(msgspec.Struct, tag=True, frozen=True):
    """What is waited for, as the end of "waiting for"."""

    what: str


ToDriver = Connect | Send | Leave
FromDriver = Joined | Left | Alive | Answers | Trouble | Waiting

#: Tells our process something.
Emit = Callable[[FromDriver], None]

_encoder = msgspec.msgpack.Encoder()
_to_driver: msgspec.msgpack.Decoder[ToDriver] = msgspec.msgpack.Decoder(ToDriver)
_from_driver: msgspec.msgpack.Decoder[FromDriver] = msgspec.msgpack.Decoder(FromDriver)


def encode(frame: ToDriver | FromDriver) -> bytes:
    return with_length(_encoder.encode(frame))


def decode_to_driver(body: bytes) -> ToDriver:
    return _to_driver.decode(body)


def decode_from_driver(body: bytes) -> FromDriver:
    return _from_driver.decode(body)
