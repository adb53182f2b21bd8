"""Where the batches of a scoring run: here or on a server; and who looks on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from gristmill.scoring.prompt import Method
from gristmill.wire.batch import Batch

if TYPE_CHECKING:
    from gristmill.client import Silence


class PassFiles(NamedTuple):
    """``batch`` as it ended, and where its output and error files are, as far as it has them."""

    batch: Batch
    files: Sequence[Path]


class ScoreBackend(Protocol):
    """Each member raises UserError."""

    @property
    def model(self) -> str:
        """What requests call it."""
        ...

    @property
    def place(self) -> str:
        """Where it runs, in words: "ollama engine", "on the server http://...", never with a password."""
        ...

    @property
    def labels_method(self) -> Method:
        """How it is asked for the probabilities of labels: all of them, or those of the most probable tokens."""
        ...

    @property
    def begins_answers(self) -> bool:
        """Whether it goes on from an answer that was begun for the model. It may take an engine's start to know."""
        ...

    def session(self) -> AbstractContextManager[object]:
        """Passes that are run inside share one engine, which is started by the first of them that needs it, and stopped
        at the end, whatever comes. Within a session, another one is the same."""
        ...

    def run(
        self, folder: Path, input_file: Path, endpoint: str, shared: dict[str, Any], identity: dict[str, Any]
    ) -> PassFiles:
        """Run a batch of ``input_file`` to its end, or go on with it where it was begun. ``folder`` is the pass's.
        Raises Interrupted where a signal ended it before."""
        ...


class Interrupted(Exception):
    """A signal came; what is done is kept in ``folder``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"stopped; what is done is kept in {folder}")
        self.folder = folder


class BatchView(Protocol):
    """Looks on while one batch runs."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def waiting(self, waiting_for: str) -> None:
        """The engine is not there yet."""
        ...

    def update(self, batch: Batch) -> None: ...

    def no_answer(self, silence: Silence) -> None:
        """The server has not answered for a while."""
        ...

    def ended(self, batch: Batch) -> None: ...


class NoView:
    """Looks away."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def waiting(self, waiting_for: str) -> None:
        pass

    def update(self, batch: Batch) -> None:
        pass

    def no_answer(self, silence: Silence) -> None:
        pass

    def ended(self, batch: Batch) -> None:
        pass


#: A view for each batch.
MakeView = Callable[[], BatchView]
