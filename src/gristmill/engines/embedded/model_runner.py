"""What a library that runs models must give the embedded engine; scheduling, sampling and the rest are here already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.kv.kv_memory import KvMemory, Move, Place
from gristmill.engines.embedded.pictures.picture import Eyes
from gristmill.engines.embedded.scheduling.step_abort import StepAbort
from gristmill.engines.embedded.tokenizer import TextEncoder
from gristmill.engines.protocol import Computing
from gristmill.models.defaults import NO_DEFAULTS, ModelDefaults

if TYPE_CHECKING:
    from gristmill.engines.embedded.embeddings.embedding_runner import LoadedEmbedder


class EmbeddedOptions(msgspec.Struct, frozen=True):
    """How much an embedded engine may use. An engine of its own options extends it."""

    #: Memory for the KV cache, in GiB; it bounds how many tokens sequences and reusable prefixes may hold together.
    kv_cache_gb: float = 2.0
    #: Sequences computed at the same time. Some engines have 0: what is fastest here, measured when first started.
    max_rows: int = 64
    #: Tokens computed in one step; longer prefills are cut into chunks of it. 0: what suits the rows.
    step_tokens: int = 2048
    #: CPU threads; 0: all that this process may use.
    threads: int = 0
    #: Disk space for prefixes that rows share, of all models together, in GiB; 0: none are kept on disk.
    prefix_disk_gb: float = 4.0
    #: Of chats. model: what comes with the model, Ollama's template before that in the model's file; gguf: the latter.
    template: Literal["model", "gguf"] = "model"


class Span(NamedTuple, Generic[Place]):
    """A piece of one sequence that a step computes: ``tokens`` that come after ``past`` others. ``place`` is where the
    sequence's keys and values are, as the runner's KV memory has it.

    ``samples`` lists the offsets within ``tokens`` whose next-token logits are wanted.
    """

    tokens: list[int]
    past: int
    place: Place
    samples: tuple[int, ...]


class Vocabulary(TextEncoder, Protocol):
    """The model's tokenizer, token by token as well; used by several threads at a time.

    ``token_bytes[i]`` is what token ``i`` adds to the text; empty for those in ``special``. A token may hold part of
    a character, so bytes are joined before they are decoded.
    """

    token_bytes: list[bytes]
    special: frozenset[int]

    def special_text(self, token: int) -> bytes:
        """How the vocabulary spells a token, special or not ("<|im_end|>")."""
        ...


class ModelRunner(Protocol[Place, Move]):
    """A loaded model and its KV cache. Used by one thread."""

    def new_memory(self) -> KvMemory[Place, Move]:
        """An account of the KV cache, which is empty from then on."""
        ...

    def make_moves(self, moves: list[Move]) -> None:
        """Do in the KV cache what its account has planned, one after the other."""
        ...

    def forward(self, spans: list[Span[Place]], abort: StepAbort) -> NDArray[np.float32]:
        """Compute a step, writing the spans' keys and values; no two spans write to the same place.
        Logits of the wanted positions in the order of the spans, shape (positions, vocabulary), valid until the next
        call. Raises StepAborted soon after ``abort`` was asked for; a library that cannot stop halfway leaves it alone,
        and interactive requests wait. Raises OutOfRoom where a smaller step may go."""
        ...


class StepCosts(NamedTuple):
    """``key``: all that the time of a step depends on. ``cells_a_token``: how many KV cells' attention takes about as
    long as the rest of a token, by the shape of the model."""

    key: str
    cells_a_token: int


class LoadedModel(NamedTuple):
    """``ends`` are the token ids that end an answer. ``context_length``: tokens of the longest sequence that the model
    was made for. ``notices`` are sentences for the log. ``defaults``: what ``LocalModel`` says of them.
    ``step_costs``: where it is worth measuring how many rows to compute at a time. ``scorer``: computes label scores
    instead of ``runner``, a row at a time, each the same to the bit whatever else is computed."""

    runner: ModelRunner[Any, Any]
    vocabulary: Vocabulary
    ends: frozenset[int]
    context_length: int
    notices: list[str]
    defaults: ModelDefaults = NO_DEFAULTS
    computing: Computing | None = None
    eyes: Eyes | None = None
    step_costs: StepCosts | None = None
    scorer: ModelRunner[Any, Any] | None = None


#: Loads a model in the worker process, by what the user calls it and the options as plain values (those of the engine's
#: own options class). Raises UserError when it cannot be used, MemoryError when the KV cache cannot be reserved.
LoadModel = Callable[[str, dict[str, Any]], "LoadedModel | LoadedEmbedder"]
