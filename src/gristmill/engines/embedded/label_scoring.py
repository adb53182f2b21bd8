"""Label scores: exact probabilities of labels of several tokens, and of labels within labels.

A label's probability is that of the output starting with its tokens, and going on with none of the longer labels that
begin with it: P("1") leaves out P("10"). So only the logits after the prompt, and after each beginning that several
labels share or that is a label itself, are needed; nothing is generated. The labels are a trie of token ids, and a
request is one sequence for each of its probes.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.pictures.picture import Picture
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.scheduling.step_plan import Chunk
from gristmill.engines.protocol import LabelScores

#: The node at the end of the prompt; the others are numbered as they come.
ROOT = 0


class LabelTrie:
    """Pure. Nodes are numbers; memory grows with the labels' tokens, and no faster."""

    def __init__(self, labels: list[list[int]]) -> None:
        """``labels``: the token ids of each label. Raises ValueError where one is empty or two are the same."""
        #: For each node that is not a leaf, the node that each of its tokens leads to. Leaves have no entry.
        self.children: dict[int, dict[int, int]] = {ROOT: {}}
        self._parents = [(ROOT, -1)]
        self._ends = [self._add(label) for label in labels]
        if ROOT in self._ends:
            raise ValueError("a label has no token")
        if len(set(self._ends)) != len(self._ends):
            raise ValueError("two labels are the same tokens")

    def _add(self, label: list[int]) -> int:
        node = ROOT
        for token in label:
            children = self.children.setdefault(node, {})
            if token not in children:
                children[token] = len(self._parents)
                self._parents.append((node, token))
            node = children[token]
        return node

    def probes(self) -> list[int]:
        """The nodes whose paths, each appended to the prompt, pass every node that is not a leaf."""
        return [
            node
            for node, children in self.children.items()
            if not any(each in self.children for each in children.values())
        ]

    def path(self, node: int) -> list[int]:
        """The nodes that are passed from the root, which is left out, to ``node``."""
        passed = []
        while node != ROOT:
            passed.append(node)
            node = self._parents[node][0]
        return passed[::-1]

    def token(self, node: int) -> int:
        """The token that leads to a node other than the root."""
        return self._parents[node][1]

    def score(self, logprobs: dict[int, float]) -> list[float]:
        """Each label's log-probability. ``logprobs`` has, for every node but the root, that of its token after the
        path to it."""
        return [self._score(end, logprobs) for end in self._ends]

    def _score(self, end: int, logprobs: dict[int, float]) -> float:
        total = sum(logprobs[node] for node in self.path(end))
        if end in self.children:
            longer = math.fsum(math.exp(logprobs[child]) for child in self.children[end].values())
            # Rounding may push the sum to one; the smallest float keeps the logarithm finite.
            total += math.log(max(1.0 - longer, sys.float_info.min))
        return total


class LabelScoring:
    """A request while it is computed. Probes are taken with ``next_probe`` and come back by themselves; ``scores``
    has the result when ``done``."""

    def __init__(
        self,
        request_id: int,
        model: str,
        prompt: list[int],
        trie: LabelTrie,
        interactive: bool,
        pictures: list[Picture] | None = None,
    ) -> None:
        """``prompt`` in token ids, and the labels to look for after it. ``pictures``: of the prompt; they must be there
        as long as it is to be computed."""
        self._pictures = pictures
        self.id = request_id
        self._model = model
        self._prompt = prompt
        self._trie = trie
        self.interactive = interactive
        self._logprobs: dict[int, float] = {}
        self._noted: set[int] = set()
        self._waiting = trie.probes()[::-1]
        self._first: Sequence | None = None
        self.probes: set[LabelProbe] = set()

    def next_probe(self) -> LabelProbe | None:
        """None when all have been taken. Each is a whole prompt's tokens, so take no more than are computed at a
        time."""
        if not self._waiting:
            return None
        probe = LabelProbe(self, self._prompt, self._waiting.pop(), self._trie, self.interactive)
        self._first = self._first or probe.sequence
        self.probes.add(probe)
        return probe

    @property
    def sees(self) -> bool:
        """Whether there are pictures in the prompt."""
        return bool(self._pictures)

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
        for token, child in self._trie.children[node].items():
            self._logprobs[child] = float(logits[token]) - normaliser

    def scores(self) -> LabelScores:
        prompt_tokens = len(self._prompt)
        cached_tokens = min((self._first and self._first.cached_tokens) or 0, prompt_tokens)
        logprobs = tuple(self._trie.score(self._logprobs))
        return LabelScores(self._model, logprobs, prompt_tokens, cached_tokens)


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
