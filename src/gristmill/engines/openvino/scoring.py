"""A request for label scores while it is being computed: one sequence for each probe of its label trie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.openvino.label_trie import LabelTrie, Path
from gristmill.engines.openvino.scheduler import Work
from gristmill.engines.openvino.sequence import Sequence
from gristmill.engines.protocol import LabelScores


class ScoreJob:
    """``prompt`` in token ids, and the labels to look for after it."""

    def __init__(self, prompt: list[int], trie: LabelTrie) -> None:
        self.prompt = prompt
        self.trie = trie
        self.longest = len(prompt) + max(len(path) for path in trie.probes())


class Scoring:
    """``probes`` are left until ``missing`` is 0; then ``scores`` has the result."""

    def __init__(self, request_id: int, model: str, job: ScoreJob) -> None:
        self.id = request_id
        self.model = model
        self._job = job
        self._logprobs: dict[Path, dict[int, float]] = {}
        self.probes = [Probe(self, job.prompt, path) for path in job.trie.probes()]
        self.missing = len(self.probes)

    def note(self, path: Path, logits: NDArray[np.float32]) -> None:
        """The logits after ``path``; probes share the beginnings of their paths, which are noted once."""
        if path not in self._logprobs:
            # Only a few tokens are asked for: the normaliser is all that the whole vocabulary is needed for.
            highest = float(logits.max())
            normaliser = highest + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))
            children = self._job.trie.children[path]
            self._logprobs[path] = {token: float(logits[token]) - normaliser for token in children}

    def scores(self) -> LabelScores:
        first = self.probes[0].sequence
        prompt_tokens = len(self._job.prompt)
        logprobs = tuple(self._job.trie.score(self._logprobs))
        return LabelScores(self.model, logprobs, prompt_tokens, min(first.cached_tokens or 0, prompt_tokens))


class Probe:
    """One sequence of a scoring: the prompt and a path, with logits wanted from the end of the prompt on."""

    def __init__(self, scoring: Scoring, prompt: list[int], path: Path) -> None:
        self.scoring = scoring
        self._path = path
        self._first = len(prompt) - 1
        self.sequence = Sequence([*prompt, *path], first_wanted=self._first)

    def offsets(self, work: Work) -> tuple[int, ...]:
        """Which tokens of this step's work have logits that are wanted, counted from its first."""
        return tuple(range(max(self._first - work.start, 0), work.tokens))

    def take(self, work: Work, logits: NDArray[np.float32]) -> None:
        """``logits`` of the wanted tokens, shape (tokens, vocabulary)."""
        for row, offset in enumerate(self.offsets(work)):
            depth = work.start + offset - self._first
            self.scoring.note(self._path[:depth], logits[row])
