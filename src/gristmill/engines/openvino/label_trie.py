"""Labels as a trie of token ids: exact probabilities of labels of several tokens, and of labels within labels. Pure.

A label's probability is that of the output starting with its tokens, and going on with none of the longer labels that
begin with it: P("1") leaves out P("10"). So only the logits after the prompt, and after each beginning that several
labels share or that is a label itself, are needed; nothing is generated.
"""

from __future__ import annotations

import math
import sys

#: The node at the end of the prompt; the others are numbered as they come.
ROOT = 0


class LabelTrie:
    """Nodes are numbers; memory grows with the labels' tokens, and no faster."""

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
