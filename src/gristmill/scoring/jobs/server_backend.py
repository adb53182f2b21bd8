"""The server as the process that works on a scoring has it: over its pipes."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from gristmill.scoring.backend import PassFiles
from gristmill.scoring.jobs.messages import FromWorker, Refused, RunPass, ToWorker
from gristmill.scoring.prompt import LABELS, TOP_LOGPROBS, Method
from gristmill.user_error import UserError


class Pipes:
    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    def say(self, message: FromWorker) -> None:
        self._outgoing.write(msgspec.json.encode(message) + b"\n")
        self._outgoing.flush()

    def hear(self, kind: Any) -> Any:
        line = self._incoming.readline()
        if not line:
            # The server is gone; the one that comes after it starts another process.
            os._exit(1)
        return msgspec.json.decode(line, type=kind)


class ServerBackend:
    """The server that started this process. A pass that was begun is not begun again: the server knows its batch."""

    begins_answers = False
    place = "on this server"

    def __init__(self, pipes: Pipes, model: str, labels: bool) -> None:
        self._pipes = pipes
        self.model = model
        self.labels_method: Method = LABELS if labels else TOP_LOGPROBS

    def session(self) -> AbstractContextManager[None]:
        # The server's engine is up anyway.
        return contextlib.nullcontext()

    def run(
        self, folder: Path, input_file: Path, endpoint: str, shared: dict[str, Any], identity: dict[str, Any]
    ) -> PassFiles:
        self._pipes.say(RunPass(str(folder), self.model, str(input_file), endpoint, shared, identity))
        answer: ToWorker = self._pipes.hear(ToWorker)
        if isinstance(answer, Refused):
            raise UserError(answer.message)
        return PassFiles(answer.batch, [Path(each) for each in answer.files])
