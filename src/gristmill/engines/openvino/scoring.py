"""A request for label scores while it is being computed: one sequence for each probe of its label trie."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.openvino.label_trie import ROOT, LabelTrie
from gristmill.engines.openvino.scheduler import Chunk
from gristmill.engines.openvino.sequence import Sequence
from gristmill.engines.protocol import LabelScores


class PreparedScore(NamedTuple):
    """A request for label scores that is ready to be computed: ``prompt`` in token ids, and the labels to look for
    after it."""

    id: int
    model: str
    prompt: list[int]
    trie: LabelTrie
    interactive: bool


class LabelScoring:
    """Probes are taken with ``next_probe`` and come back by themselves; ``scores`` has the result when ``done``."""

    def __init__(self, prepared: PreparedScore) -> None:
        self.id = prepared.id
        self._prepared = prepared
        self._logprobs: dict[int, float] = {}
        self._noted: set[int] = set()
        self._waiting = prepared.trie.probes()[::-1]
        self._first: Sequence | None = None
        self.probes: set[LabelProbe] = set()

    def next_probe(self) -> LabelProbe | None:
        """None when all have been taken. Each is a whole prompt's tokens, so take no more than are computed at a
        time."""
        if not self._waiting:
            return None
        prepared = self._prepared
        probe = LabelProbe(self, prepared.prompt, self._waiting.pop(), prepared.trie, prepared.interactive)
        self._first = self._first or probe.sequence
        self.probes.add(probe)
        return probe

    @property
    def done(self) -> bool:
        return not self._waiting and not self.probes

    def note(self, node: int, logits: NDArray[np.float32]) -> None:
        """The logits after the path to ``node``; probes share the beginnings of their paths, which are noted once."""
        if node in self._noted:
            return
        self._noted.add(node)
        # Only a few tokens are asked for: the normaliser is all that the whole vocabulary is needed for.
        highest = float(logits.max())
        normaliser = highest + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))
        for token, child in self._prepared.trie.children[node].items():
            self._logprobs[child] = float(logits[token]) - normaliser

    def scores(self) -> LabelScores:
        prompt_tokens = len(self._prepared.prompt)
        cached_tokens = min((self._first and self._first.cached_tokens) or 0, prompt_tokens)
        logprobs = tuple(self._prepared.trie.score(self._logprobs))
        return LabelScores(self._prepared.model, logprobs, prompt_tokens, cached_tokens)


class LabelProbe:
    """One sequence of a scoring: the prompt and a path, with logits wanted from the end of the prompt on."""

    def __init__(self, scoring: LabelScoring, prompt: list[int], node: int, trie: LabelTrie, interactive: bool) -> None:
        self.scoring = scoring
        self._nodes = [ROOT, *trie.path(node)]
        self._first = len(prompt) - 1
        tokens = [*prompt, *map(trie.token, self._nodes[1:])]
        self.sequence = Sequence(tokens, first_wanted=self._first, interactive=interactive)

    def offsets(self, chunk: Chunk) -> tuple[int, ...]:
        """Which tokens of this step's chunk have logits that are wanted, counted from its first."""
        return tuple(range(max(self._first - chunk.start, 0), chunk.tokens))

    def take(self, chunk: Chunk, logits: NDArray[np.float32]) -> None:
        """``logits`` of the wanted tokens, shape (tokens, vocabulary)."""
        for row, offset in enumerate(self.offsets(chunk)):
            self.scoring.note(self._nodes[chunk.start + offset - self._first], logits[row])
