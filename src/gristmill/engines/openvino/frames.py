"""What the server and the worker process say to each other: a length (4 bytes, little-endian), then msgpack."""

from __future__ import annotations

import msgspec

from gristmill.engines.openvino.options import OpenVinoOptions
from gristmill.engines.protocol import Completion, ErrorKind, LabelScores
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest


class Load(msgspec.Struct, tag=True, frozen=True):
    """Always the first frame to the worker; answered by Ready or LoadFailed."""

    model: str
    options: OpenVinoOptions


class Submit(msgspec.Struct, tag=True, frozen=True):
    """Exactly one of ``chat`` and ``text`` is set. ``stream``: send Text frames as text becomes certain."""

    id: int
    chat: ChatCompletionRequest | None = None
    text: CompletionRequest | None = None
    stream: bool = False


class SubmitScore(msgspec.Struct, tag=True, frozen=True):
    """Exactly one of ``chat`` and ``text`` is the prompt, exactly one of ``labels`` and ``label_ids`` is set."""

    id: int
    model: str
    chat: list[Message] | None = None
    text: str | None = None
    labels: list[str] | None = None
    label_ids: list[int] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class Cancel(msgspec.Struct, tag=True, frozen=True):
    id: int


class Ready(msgspec.Struct, tag=True, frozen=True):
    """``fallback``: why OpenVINO's attention kernel is used where ours was asked for; else empty."""

    context_length: int
    fallback: str


class LoadFailed(msgspec.Struct, tag=True, frozen=True):
    """``user_error``: the message is a sentence for the user, not a traceback."""

    message: str
    user_error: bool


class Text(msgspec.Struct, tag=True, frozen=True):
    id: int
    choice: int
    text: str


class Done(msgspec.Struct, tag=True, frozen=True):
    id: int
    completion: Completion


class Scored(msgspec.Struct, tag=True, frozen=True):
    id: int
    scores: LabelScores


class Failed(msgspec.Struct, tag=True, frozen=True):
    id: int
    kind: ErrorKind
    message: str
    status: int
    param: str | None
    code: str | None


ToWorker = Load | Submit | SubmitScore | Cancel
FromWorker = Ready | LoadFailed | Text | Done | Scored | Failed

LENGTH_BYTES = 4
_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(frame: ToWorker | FromWorker) -> bytes:
    body = _encoder.encode(frame)
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


def decode_to_worker(body: bytes) -> ToWorker:
    return _to_worker.decode(body)


def decode_from_worker(body: bytes) -> FromWorker:
    return _from_worker.decode(body)
