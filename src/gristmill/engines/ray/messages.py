"""What a pool and its replicas say to each other: lists of messages, each encoded by itself.

So one that cannot be read costs one request, and who only passes a group on need not read it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gristmill.engines.answer_frames import Decoded, Done, Embedded, Scored
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import (
    AnyAnswer,
    AnyRequest,
    Capabilities,
    Completion,
    Embeddings,
    ForwardedAnswer,
    ForwardRequest,
    LabelScores,
)
from gristmill.engines.request_frames import Cancel, Submit, SubmitEmbedding, SubmitScore, submission, submitted


class SubmitForward(msgspec.Struct, tag=True, frozen=True):
    """A ForwardRequest; ``prompt`` as bytes, since its pieces are JSON."""

    id: int
    path: str
    model: str
    body: bytes
    prompt: list[bytes]
    stream: bool
    interactive: bool


class Alone(msgspec.Struct, tag=True, frozen=True):
    """``asked`` is a request's message, encoded: to be answered while the replica answers nothing else."""

    id: int
    asked: bytes


class AskFingerprint(msgspec.Struct, tag=True, frozen=True):
    id: int


class Event(msgspec.Struct, tag=True, frozen=True):
    """A server-sent event of a stream that is passed on."""

    id: int
    event: bytes


class Forwarded(msgspec.Struct, tag=True, frozen=True):
    id: int
    answer: ForwardedAnswer


class Fingerprint(msgspec.Struct, tag=True, frozen=True):
    id: int
    text: str | None


class NotAnswered(msgspec.Struct, tag=True, frozen=True):
    """An EngineError."""

    id: int
    kind: ErrorKind
    message: str
    status: int = 500
    param: str | None = None
    code: str | int | None = None
    error_type: str | None = None
    retry_after: float | None = None
    crashed: str | None = None

    @staticmethod
    def of(number: int, error: EngineError) -> NotAnswered:
        return NotAnswered(
            number, error.kind, error.message, error.status, error.param, error.code, error.type, error.retry_after,
            error.crashed,
        )  # fmt: skip

    def error(self) -> EngineError:
        return EngineError(
            self.kind, self.message, status=self.status, param=self.param, code=self.code, type=self.error_type,
            retry_after=self.retry_after, crashed=self.crashed,
        )  # fmt: skip


class NotBegun(msgspec.Struct, tag=True, frozen=True):
    """``taken``: the replica is kept for another client's row. Else it waits for what the replica is answering, and
    nothing that waited there is begun before whoever asked has asked again."""

    id: int
    taken: bool


class ReplicaFacts(msgspec.Struct, frozen=True):
    """What a replica is, once its engine has started."""

    version: str
    node: str
    models: tuple[str, ...]
    capabilities: Capabilities


ToReplica = Submit | SubmitScore | SubmitEmbedding | SubmitForward | Alone | AskFingerprint | Cancel
FromReplica = Decoded | Event | Done | Scored | Embedded | Forwarded | Fingerprint | NotAnswered | NotBegun

_encoder = msgspec.msgpack.Encoder()
_to_replica: msgspec.msgpack.Decoder[ToReplica] = msgspec.msgpack.Decoder(ToReplica)
_from_replica: msgspec.msgpack.Decoder[FromReplica] = msgspec.msgpack.Decoder(FromReplica)
_group: msgspec.msgpack.Decoder[list[tuple[int, bytes]]] = msgspec.msgpack.Decoder(list[tuple[int, bytes]])


def encode(message: ToReplica | FromReplica) -> tuple[int, bytes]:
    """With the id of its request. Raises ValueError, OverflowError or RecursionError for what msgpack cannot hold."""
    return message.id, _encoder.encode(message)


def encode_group(messages: list[tuple[int, bytes]]) -> bytes:
    return _encoder.encode(messages)


def decode_group(data: bytes) -> list[tuple[int, bytes]]:
    return _group.decode(data)


def decode_to_replica(data: bytes) -> ToReplica:
    return _to_replica.decode(data)


def decode_from_replica(data: bytes) -> FromReplica:
    return _from_replica.decode(data)


def question(number: int, request: AnyRequest, stream: bool, interactive: bool) -> ToReplica:
    """The message that asks for ``request``."""
    if isinstance(request, ForwardRequest):
        prompt = [bytes(part) for part in request.prompt]
        return SubmitForward(number, request.path, request.model, request.body, prompt, request.stream, interactive)
    return submission(number, request, stream, interactive)


def request_of(message: Submit | SubmitScore | SubmitEmbedding | SubmitForward) -> AnyRequest:
    """What ``question`` was made of."""
    if isinstance(message, SubmitForward):
        prompt = tuple(msgspec.Raw(part) for part in message.prompt)
        return ForwardRequest(message.path, message.model, message.body, prompt, message.stream)
    return submitted(message)


def answered(number: int, answer: AnyAnswer) -> FromReplica:
    match answer:
        case Completion():
            return Done(number, answer)
        case LabelScores():
            return Scored(number, answer)
        case Embeddings():
            return Embedded(number, answer)
        case ForwardedAnswer():
            return Forwarded(number, answer)


def answer_of(message: FromReplica) -> Any:
    """What ``answered`` was made of, or a fingerprint. Raises the EngineError."""
    match message:
        case Done():
            return message.completion
        case Scored():
            return message.scores
        case Embedded():
            return message.embeddings
        case Forwarded():
            return message.answer
        case Fingerprint():
            return message.text
        case NotAnswered():
            raise message.error()
        case _:
            raise ValueError(f"{type(message).__name__} is no answer")
