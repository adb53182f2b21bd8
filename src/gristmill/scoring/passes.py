"""One pass over some of the questions: a batch, run here or on a server, and its outcomes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from gristmill.scoring.outcome import Outcome
from gristmill.scoring.prompt import Instrument, Method, shared_body
from gristmill.scoring.questions import Question, read_outcomes, write_questions
from gristmill.wire.batch import Batch


class PassFiles(NamedTuple):
    """``batch`` as it ended, and where its output and error files are, as far as it has them."""

    batch: Batch
    files: Sequence[Path]


class Backend(Protocol):
    """Where batches run: here or on a server. Each member raises UserError."""

    @property
    def model(self) -> str:
        """What requests call it."""
        ...

    @property
    def labels_method(self) -> Method:
        """How it is asked for the probabilities of labels: all of them, or those of the most probable tokens."""
        ...

    def run(
        self, folder: Path, input_file: Path, endpoint: str, shared: dict[str, Any], identity: dict[str, Any]
    ) -> PassFiles:
        """Run a batch of ``input_file`` to its end, or go on with it where it was begun. ``folder`` is the pass's."""
        ...


class Pass(NamedTuple):
    """``name`` is of its folder. ``changes`` are body parameters that differ from the method's own."""

    name: str
    method: Method
    backend: Backend
    changes: dict[str, Any] = {}  # noqa: RUF012 - never written to

    def outcomes(
        self, folder: Path, asked: Iterable[Question], text_of: Callable[[int], str], instrument: Instrument
    ) -> tuple[Batch, Iterator[tuple[Question, Outcome]]]:
        """Ask, or go on asking; ``folder`` is the job's."""
        own = folder / self.name
        own.mkdir(parents=True, exist_ok=True)
        input_file = own / "questions.jsonl"
        rows = write_questions(input_file, asked, text_of, instrument, self.method, self.backend.model)
        shared = shared_body(instrument, self.method) | self.changes
        digest = hashlib.sha256(msgspec.json.encode(shared)).hexdigest()
        identity = {"table or row template": rows, "rubric, scale or examples": digest, "method": self.method.name}
        done = self.backend.run(own, input_file, self.method.endpoint, shared, identity)
        return done.batch, read_outcomes(done.files, instrument, self.method)
