"""What the runners of a server have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from gristmill.batches.input_reader import Limits
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.storage.answers import AnswerStore
from gristmill.storage.protocol import Storage
from gristmill.telemetry.spans import Spans


class Workplace(NamedTuple):
    """What all runners of a process work with. ``scratch`` is a folder for what planning cannot keep in memory."""

    storage: Storage
    dispatcher: Dispatcher
    answers: AnswerStore
    limits: Limits
    scratch: Path
    spans: Spans | None = None
    #: Whether a batch that asks for this model, at this endpoint, is for another server that is there.
    for_another: Callable[[str, str], Awaitable[bool]] | None = None
