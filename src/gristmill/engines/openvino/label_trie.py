"""Labels as a trie of token ids: exact probabilities of labels of several tokens, and of labels within labels. Pure.

A label's probability is that of the output starting with its tokens, and going on with none of the longer labels that
begin with it: P("1") leaves out P("10"). So only the logits after the prompt, and after each beginning that several
labels share or that is a label itself, are needed; nothing is generated.
"""

from __future__ import annotations

import math
import sys

#: Token ids from the end of the prompt to a node.
Path = tuple[int, ...]


class LabelTrie:
    """``labels``: the token ids of each label. Raises ValueError where one is empty or two are the same."""

    def __init__(self, labels: list[list[int]]) -> None:
        self._labels = [tuple(label) for label in labels]
        if not all(self._labels):
            raise ValueError("a label has no token")
        if len(set(self._labels)) != len(self._labels):
            raise ValueError("two labels are the same tokens")
        #: The tokens that lead on from each node that is not a leaf.
        self.children: dict[Path, set[int]] = {}
        for label in self._labels:
            for depth in range(len(label)):
                self.children.setdefault(label[:depth], set()).add(label[depth])

    def probes(self) -> list[Path]:
        """What to append to the prompt so that the logits along these paths cover every node that is not a leaf."""
        inner = self.children
        return sorted(path for path in inner if not any((*path, token) in inner for token in inner[path]))

    def score(self, logprobs: dict[Path, dict[int, float]]) -> list[float]:
        """Each label's log-probability. ``logprobs`` has those of the children of every node that is not a leaf."""
        return [self._score(label, logprobs) for label in self._labels]

    def _score(self, label: Path, logprobs: dict[Path, dict[int, float]]) -> float:
        total = sum(logprobs[label[:depth]][label[depth]] for depth in range(len(label)))
        if label in self.children:
            longer = math.fsum(math.exp(logprob) for logprob in logprobs[label].values())
            # Rounding may push the sum to one; the smallest float keeps the logarithm finite.
            total += math.log(max(1.0 - longer, sys.float_info.min))
        return total
