"""What the server and the worker process say to each other: a header, then msgpack.

The header holds the length of what follows and the request's id, so that a request that cannot be decoded is still one
that can be answered.
"""

from __future__ import annotations

import struct
import traceback
from typing import Any, NamedTuple

import msgspec

from gristmill.engines.answer_frames import Decoded, Done, Embedded, Scored
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import Computing
from gristmill.engines.request_frames import Cancel, Submit, SubmitEmbedding, SubmitScore


class Load(msgspec.Struct, tag=True, frozen=True):
    """Always the first frame to the worker; answered by Ready or LoadFailed. ``loader``: where its ``LoadModel`` is
    found, "package.module:function"; ``options`` are those of the engine, as plain values."""

    loader: str
    model: str
    options: dict[str, Any]


class KeepPrefixes(msgspec.Struct, tag=True, frozen=True):
    """Comes before the first request, where prefixes are kept on disk. ``made_by``: the model's files, and the options
    that change how it computes. ``model``: what requests call it. ``most_bytes``: of all models' prefixes."""

    made_by: str
    model: str
    most_bytes: int


class Ping(msgspec.Struct, tag=True, frozen=True):
    """Answered by Pong at once, whatever is being computed."""


class Pong(msgspec.Struct, tag=True, frozen=True):
    """``busy_seconds``: how long the worker has been at its present step or request; 0 while it has none."""

    busy_seconds: float


class Ready(msgspec.Struct, tag=True, frozen=True):
    """``embeds``: the model gives vectors, and nothing else; otherwise it writes. ``sees``: messages may have images.
    ``notices`` are sentences for the log. ``max_rows`` and ``step_tokens``: computed at a time; ``steps_from``: where
    they are from, where nobody has asked for them."""

    context_length: int
    notices: list[str]
    max_rows: int
    step_tokens: int
    steps_from: str | None = None
    embeds: bool = False
    sees: bool = False
    computing: Computing | None = None


class PrefixRead(msgspec.Struct, tag=True, frozen=True):
    """KV state of so many tokens was read from the disk instead of computed, in ``seconds``."""

    tokens: int
    seconds: float


class LoadFailed(msgspec.Struct, tag=True, frozen=True):
    """``user_error``: the message is a sentence for the user, not a traceback."""

    message: str
    user_error: bool


class Notice(msgspec.Struct, tag=True, frozen=True):
    """A sentence for the log, of what has happened while requests are computed."""

    text: str


class Failed(msgspec.Struct, tag=True, frozen=True):
    id: int
    kind: ErrorKind
    message: str
    status: int
    param: str | None
    code: str | int | None


ToWorker = Load | KeepPrefixes | Submit | SubmitScore | SubmitEmbedding | Cancel | Ping
FromWorker = Ready | LoadFailed | Notice | PrefixRead | Decoded | Done | Scored | Embedded | Failed | Pong


class Header(NamedTuple):
    """``length`` of the body in bytes; ``request_id`` is 0 for frames that concern no request."""

    length: int
    request_id: int


_header = struct.Struct("<IQ")
HEADER_BYTES = _header.size
_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(frame: ToWorker | FromWorker) -> bytes:
    """Raises ValueError, OverflowError or RecursionError for values that msgpack cannot hold."""
    body = _encoder.encode(frame)
    if len(body) >= 2**32:
        raise ValueError("it is longer than 4 GiB")
    return _header.pack(len(body), getattr(frame, "id", 0)) + body


def decode_header(data: bytes) -> Header:
    return Header(*_header.unpack(data))


def decode_to_worker(body: bytes) -> ToWorker:
    return _to_worker.decode(body)


def decode_from_worker(body: bytes) -> FromWorker:
    return _from_worker.decode(body)


#: Libraries repeat what they were given; no more of it than this goes into an error.
_REASON_CHARS = 500


def failed_by(request_id: int, error: BaseException) -> Failed:
    """A request that cannot be nested or encoded as it is will not get better; what we did not foresee might. (A panic
    of llguidance is no Exception.)"""
    if isinstance(error, EngineError):
        return Failed(request_id, error.kind, error.message, error.status, error.param, error.code)
    if isinstance(error, RecursionError):
        message = "The request is nested too deeply."
        return Failed(request_id, ErrorKind.INVALID_REQUEST, message, 400, None, "invalid_value")
    if isinstance(error, msgspec.DecodeError):
        message = f"The embedded engine cannot read this request: {error}."
        return Failed(request_id, ErrorKind.INVALID_REQUEST, message, 400, None, "invalid_value")
    traceback.print_exception(error, limit=-3)
    message = f"The embedded engine failed on this request: {type(error).__name__}: {error}"[:_REASON_CHARS]
    return Failed(request_id, ErrorKind.INTERRUPTED, message, 500, None, None)
